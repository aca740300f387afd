"""The shipped pair: the guide's table row by row."""

import io
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.gpt import GPTConfig

PAIR = (CausalSelfAttention, FlashCausalSelfAttention)


def config(**changes: Any) -> GPTConfig:
    sizes = {"vocab_size": 11, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 8} | changes
    return GPTConfig(**sizes)


def pair(**changes: Any) -> tuple[CausalSelfAttention, FlashCausalSelfAttention]:
    torch.manual_seed(0)
    original = CausalSelfAttention(config(**changes))
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.normal_()
    flash = FlashCausalSelfAttention(config(**changes))
    flash.load_state_dict(original.state_dict(), strict=True)
    return original, flash


# --- the original ----------------------------------------------------------------------------------------------------


def test_the_original_is_softmax_of_scaled_scores_up_to_the_query() -> None:
    original, _ = pair(n_head=1)
    original.double().eval()
    x = torch.randn(1, 4, 8, dtype=torch.float64)
    q, k, v = (layer(x)[0] for layer in (original.query, original.key, original.value))
    rows = []
    for t in range(4):
        weights = torch.softmax(torch.stack([q[t] @ k[s] / math.sqrt(8) for s in range(t + 1)]), 0)
        rows.append(sum(w * v[s] for s, w in enumerate(weights)))
    torch.testing.assert_close(original(x)[0], original.proj(torch.stack(rows)))


def test_heads_do_not_mix_before_the_projection() -> None:
    original, _ = pair()
    original.double().eval()
    with torch.no_grad():
        original.proj.weight.copy_(torch.eye(8))
    x = torch.randn(1, 4, 8, dtype=torch.float64)
    y = original(x)
    with torch.no_grad():
        original.query.weight[:4] += 1.0
    assert not torch.equal(original(x)[..., :4], y[..., :4])
    assert torch.equal(original(x)[..., 4:], y[..., 4:])


def test_the_probabilities_are_kept_after_each_forward() -> None:
    original, _ = pair()
    assert original.attention_weights is None
    original.eval()(torch.randn(3, 5, 8))
    assert original.attention_weights is not None
    assert original.attention_weights.shape == (3, 2, 5, 5)


@pytest.mark.parametrize("attention", PAIR)
def test_a_width_that_the_heads_do_not_divide_is_refused_with_both_numbers(attention: Any) -> None:
    with pytest.raises(ValueError, match=r"n_embd=8 .* n_head=3"):
        attention(config(n_head=3))


# --- the guide's table, row by row -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["key", "query", "value", "proj"])
def test_the_projections_are_the_same_linear_layers(name: str) -> None:
    for module in pair():
        layer = module.get_submodule(name)
        assert type(layer) is nn.Linear
        assert layer.weight.shape == (8, 8)
        assert layer.bias is not None


@pytest.mark.parametrize(("name", "rate"), [("attn_drop", 0.3), ("resid_drop", 0.2)])
def test_the_dropouts_are_the_same_layers_with_the_same_rates(name: str, rate: float) -> None:
    for module in pair(attn_pdrop=0.3, resid_pdrop=0.2):
        layer = module.get_submodule(name)
        assert type(layer) is nn.Dropout
        assert layer.p == rate


def test_the_mask_is_kept_as_a_persistent_buffer() -> None:
    for module in pair():
        assert module.mask.shape == (1, 1, 8, 8)
        assert module.mask.dtype is torch.float32
        assert torch.equal(module.mask[0, 0], torch.ones(8, 8).tril())
        assert "mask" in dict(module.named_buffers())
        assert "mask" in module.state_dict()


def test_the_number_of_heads_is_kept() -> None:
    assert [module.n_head for module in pair()] == [2, 2]


def test_the_fused_attention_keeps_no_probabilities() -> None:
    _, flash = pair()
    flash(torch.randn(1, 3, 8))
    assert flash.attention_weights is None
    assert "attention_weights" in vars(flash)


def test_checkpoints_go_both_ways() -> None:
    for source, target in (pair(), pair()[::-1]):
        with torch.no_grad():
            for number, parameter in enumerate(target.parameters()):
                parameter.fill_(number)
        file = io.BytesIO()
        torch.save(source.state_dict(), file)
        file.seek(0)
        target.load_state_dict(torch.load(file, weights_only=True), strict=True)
        assert list(source.state_dict()) == list(target.state_dict())
        assert all(torch.equal(tensor, target.state_dict()[name]) for name, tensor in source.state_dict().items())


def test_outputs_and_gradients_are_the_same_up_to_rounding() -> None:
    results = []
    for module in pair():
        module.double().eval()
        x = torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
        y = module(x)
        (y * torch.arange(8)).sum().backward()
        results.append([y.detach(), x.grad, *(p.grad for p in module.parameters())])
    for its, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, its, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("attention", PAIR)
def test_a_sequence_past_the_block_is_a_runtime_error(attention: Any) -> None:
    module = attention(config())
    assert module(torch.zeros(1, 8, 8)).shape == (1, 8, 8)
    with pytest.raises(RuntimeError):
        module(torch.zeros(1, 9, 8))


def test_the_fused_attention_names_both_lengths() -> None:
    with pytest.raises(RuntimeError, match=r"T=9 is longer than block_size=8"):
        FlashCausalSelfAttention(config())(torch.zeros(1, 9, 8))


def asked_of_the_kernel(module: nn.Module, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    asked: dict[str, Any] = {}
    kernel = F.scaled_dot_product_attention

    def listening(*tensors: Tensor, **options: Any) -> Tensor:
        asked.update(options)
        return kernel(*tensors, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", listening)
    module(torch.randn(1, 3, 8))
    return asked


def test_the_kernel_is_asked_for_causality_scale_and_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    flash = FlashCausalSelfAttention(config(attn_pdrop=0.3))
    asked = asked_of_the_kernel(flash.train(), monkeypatch)
    assert asked == {"attn_mask": None, "dropout_p": 0.3, "is_causal": True, "scale": 0.5}
    assert asked_of_the_kernel(flash.eval(), monkeypatch)["dropout_p"] == 0.0


def test_rates_and_modes_are_obeyed_as_they_are_at_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    flash = FlashCausalSelfAttention(config(attn_pdrop=0.3)).train()
    flash.attn_drop.p = 0.6
    assert asked_of_the_kernel(flash, monkeypatch)["dropout_p"] == 0.6
    flash.attn_drop.eval()
    assert asked_of_the_kernel(flash, monkeypatch)["dropout_p"] == 0.0
