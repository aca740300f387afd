"""An original and its drop-in of the same random weights, and what either gives."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention, replace_attention_with_flash_attention
from equivcheck.gpt import GPTConfig

Change = Callable[[CausalSelfAttention], Any]


def config(**changes: Any) -> GPTConfig:
    sizes = {
        "vocab_size": 11,
        "block_size": 8,
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 8,
        "attn_pdrop": 0.3,
        "resid_pdrop": 0.1,
    }
    return GPTConfig(**(sizes | changes))


def pair(change: Change = lambda _: None, **changes: Any) -> tuple[CausalSelfAttention, FlashCausalSelfAttention]:
    """Original and drop-in in float64 and eval, of the same random weights; `change` is done to both."""
    torch.manual_seed(0)
    original = CausalSelfAttention(config(**changes)).double().eval()
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.normal_(std=0.4)
    flash = replace_attention_with_flash_attention(copy.deepcopy(original))
    for module in (original, flash):
        change(module)
    return original, flash


def inputs(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape or (3, 6, 8), generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def same(ours: Any, its: Any) -> None:
    torch.testing.assert_close(ours, its, rtol=1e-9, atol=1e-9, equal_nan=True)


def results(module: nn.Module, x: Tensor) -> list[Tensor | None]:
    """Output, gradient of the input, gradients of what is trained."""
    x = x.clone().requires_grad_()
    y = module(x)
    trained = [p for p in module.parameters() if p.requires_grad]
    upstream = inputs(*y.shape, dtype=y.dtype)
    return [y, *torch.autograd.grad(y, [x, *trained], upstream, allow_unused=True)]


def asked_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the kernel is asked for from now on, call by call."""
    calls: list[dict[str, Any]] = []
    kernel = F.scaled_dot_product_attention

    def listening(*tensors: Tensor, **options: Any) -> Tensor:
        calls.append({"B, H": tuple(tensors[0].shape[:2])} | options)
        return kernel(*tensors, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", listening)
    return calls
