"""How fast: original beside fused attention in one group, small on the CPU, and the size of the guide on a GPU."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.gpt import GPT, GPTConfig

ATTENTIONS = {"original": CausalSelfAttention, "flash": FlashCausalSelfAttention}

# (batch, length, config): what the guide's author trained, and what a CPU does in a moment
SIZES = {
    "cuda": (256, 399, GPTConfig(vocab_size=73, block_size=400, n_layer=4, n_head=8, n_embd=256)),
    "cpu": (4, 128, GPTConfig(vocab_size=73, block_size=128, n_layer=2, n_head=4, n_embd=64)),
}
ROUNDS = {"cuda": 20, "cpu": 5}


def timed(benchmark: Any, device: str, group: str, action: Callable[[], object]) -> None:
    """Time `action` to its end: on CUDA the clock waits for the GPU."""
    B, T, config = SIZES[device]

    def finished() -> None:
        action()
        if device == "cuda":
            torch.cuda.synchronize()

    benchmark.group = f"{group}, {device}"
    benchmark.extra_info.update(
        shape={"B": B, "T": T, "H": config.n_head, "C": config.n_embd, "layers": config.n_layer},
        dtype="float32",
        device=torch.cuda.get_device_name() if device == "cuda" else "cpu",
        torch=torch.__version__,
    )
    benchmark.pedantic(finished, rounds=ROUNDS[device], warmup_rounds=2)


def attention(device: str, which: str) -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    B, T, config = SIZES[device]
    x = torch.randn(B, T, config.n_embd, device=device)  # (B, T, C)
    return ATTENTIONS[which](config).to(device), x


@pytest.mark.parametrize("which", ATTENTIONS)
def test_attention_forward(benchmark: Any, device: str, which: str) -> None:
    module, x = attention(device, which)
    module.eval()

    def forward() -> None:
        with torch.no_grad():
            module(x)

    timed(benchmark, device, "attention forward", forward)


@pytest.mark.parametrize("which", ATTENTIONS)
def test_attention_forward_and_backward(benchmark: Any, device: str, which: str) -> None:
    module, x = attention(device, which)
    x.requires_grad_()
    upstream = torch.randn_like(x)

    def step() -> None:
        module.zero_grad()
        x.grad = None
        module(x).backward(upstream)

    timed(benchmark, device, "attention forward and backward", step)


@pytest.mark.parametrize("which", ATTENTIONS)
def test_gpt_train_step(benchmark: Any, device: str, which: str) -> None:
    torch.manual_seed(0)
    B, T, config = SIZES[device]
    model = GPT(config, attention=ATTENTIONS[which]).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    idx = torch.randint(config.vocab_size, (B, T + 1), device=device)  # (B, T + 1)

    def step() -> None:
        optimizer.zero_grad()
        model(idx[:, :-1], idx[:, 1:])[1].backward()
        optimizer.step()

    timed(benchmark, device, "GPT train step", step)
