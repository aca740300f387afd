"""The shipped pair: the guide's table row by row, and a replacement that leaves everything else as it was."""

import copy
import io
import math
import warnings
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.attention import (
    CausalSelfAttention,
    FlashCausalSelfAttention,
    replace_attention_with_flash_attention,
)
from equivcheck.gpt import GPT, GPTConfig

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


@pytest.fixture
def model() -> GPT:
    torch.manual_seed(0)
    model = GPT(config())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model


def ids(T: int = 6) -> Tensor:
    return torch.randint(11, (2, T), generator=torch.Generator().manual_seed(1))


# --- the original ----------------------------------------------------------------------------------------------------


def test_the_original_is_softmax_of_scaled_scores_over_the_keys_up_to_the_query() -> None:
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
    original, flash = pair()
    assert list(original.state_dict()) == list(flash.state_dict())
    file = io.BytesIO()
    torch.save(flash.state_dict(), file)
    file.seek(0)
    original.load_state_dict(torch.load(file, weights_only=True), strict=True)


def test_outputs_and_gradients_are_the_same_up_to_rounding() -> None:
    results = []
    for module in pair():
        module.double().eval()
        x = torch.randn(2, 7, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64).requires_grad_()
        y = module(x)
        (y * torch.arange(8)).sum().backward()
        results.append([y.detach(), x.grad, *(p.grad for p in module.parameters())])
    for its, mine in zip(*results, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-10, atol=1e-10)


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


# --- replacement -----------------------------------------------------------------------------------------------------


def attentions(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, CausalSelfAttention)]


def test_every_attention_is_replaced_in_place_and_the_model_returned(model: GPT) -> None:
    before = attentions(model)
    assert replace_attention_with_flash_attention(model) is model
    assert attentions(model) == before
    assert all(type(m) is FlashCausalSelfAttention for m in before)


def test_logits_stay_the_same_up_to_rounding(model: GPT) -> None:
    model.double().eval()
    before = model(ids())[0]
    torch.testing.assert_close(replace_attention_with_flash_attention(model)(ids())[0], before, rtol=1e-10, atol=1e-10)


def test_probabilities_of_the_past_are_dropped(model: GPT) -> None:
    model(ids())
    replace_attention_with_flash_attention(model)
    assert all(m.attention_weights is None for m in attentions(model))


def test_parameters_buffers_and_submodules_are_the_same_objects(model: GPT) -> None:
    parts = [*model.parameters(), *model.buffers(), *model.modules()]
    replace_attention_with_flash_attention(model)
    assert all(a is b for a, b in zip(parts, [*model.parameters(), *model.buffers(), *model.modules()], strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_kept(model: GPT, training: bool) -> None:
    model.train(training)
    model.blocks[0].attn.attn_drop.train(not training)
    replace_attention_with_flash_attention(model)
    assert model.blocks[1].attn.training is training
    assert model.blocks[0].attn.attn_drop.training is not training


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_dtype_is_kept(model: GPT, dtype: torch.dtype) -> None:
    replace_attention_with_flash_attention(model.to(dtype))
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert model.eval()(ids())[0].dtype is dtype


def test_frozen_parameters_stay_frozen(model: GPT) -> None:
    model.blocks[0].attn.key.requires_grad_(False)
    replace_attention_with_flash_attention(model)
    assert not model.blocks[0].attn.key.weight.requires_grad
    assert model.blocks[0].attn.query.weight.requires_grad


def test_an_optimizer_built_before_still_trains_the_model(model: GPT) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    replace_attention_with_flash_attention(model)
    before = model.blocks[0].attn.key.weight.detach().clone()
    model(ids(), ids())[1].backward()
    optimizer.step()
    assert not torch.equal(model.blocks[0].attn.key.weight, before)


def test_hooks_go_on_being_called(model: GPT) -> None:
    called: list[str] = []
    model.blocks[0].attn.register_forward_hook(lambda *_: called.append("attention"))
    model.blocks[0].attn.value.register_forward_hook(lambda *_: called.append("value"))
    replace_attention_with_flash_attention(model)(ids())
    assert called == ["value", "attention"]


def test_rates_changed_by_hand_are_kept(model: GPT) -> None:
    model.blocks[0].attn.attn_drop.p = 0.7
    assert replace_attention_with_flash_attention(model).blocks[0].attn.attn_drop.p == 0.7


def test_an_attention_shared_by_two_blocks_stays_shared(model: GPT) -> None:
    model.blocks[1].attn = model.blocks[0].attn
    replace_attention_with_flash_attention(model)
    assert model.blocks[1].attn is model.blocks[0].attn
    assert type(model.blocks[0].attn) is FlashCausalSelfAttention


def test_weights_tied_by_hand_stay_tied(model: GPT) -> None:
    model.blocks[1].attn.key.weight = model.blocks[0].attn.key.weight
    replace_attention_with_flash_attention(model)
    assert model.blocks[1].attn.key.weight is model.blocks[0].attn.key.weight


def test_a_model_that_is_itself_an_attention_is_replaced() -> None:
    module = CausalSelfAttention(config())
    assert replace_attention_with_flash_attention(module) is module
    assert type(module) is FlashCausalSelfAttention


def test_attentions_of_different_sizes_keep_their_own_heads() -> None:
    original = nn.ModuleList([CausalSelfAttention(config(n_head=h)).double().eval() for h in (1, 2, 4)])
    flash = replace_attention_with_flash_attention(copy.deepcopy(original))
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    for its, mine in zip(original, flash, strict=True):
        assert mine.n_head == its.n_head
        torch.testing.assert_close(mine(x), its(x), rtol=1e-10, atol=1e-10)


def test_replacing_twice_is_replacing_once(model: GPT) -> None:
    replace_attention_with_flash_attention(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert replace_attention_with_flash_attention(model) is model
    assert all(type(m) is FlashCausalSelfAttention for m in attentions(model))


class Windowed(CausalSelfAttention):
    """An attention that computes something else."""


class Foreign(nn.Module):
    """The forward pass of another project."""


def test_a_subclass_is_left_alone_and_named_in_a_warning(model: GPT) -> None:
    model.blocks[1].attn = Windowed(config())
    with pytest.warns(UserWarning, match=r"blocks\.1\.attn \(Windowed\)"):
        replace_attention_with_flash_attention(model)
    assert [type(m) for m in attentions(model)] == [FlashCausalSelfAttention, Windowed]


def test_a_model_of_nothing_but_subclasses_is_left_alone_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="the model itself"):
        assert type(replace_attention_with_flash_attention(Windowed(config()))) is Windowed


def test_a_subclass_that_is_the_target_is_replaced() -> None:
    module = replace_attention_with_flash_attention(Windowed(config()), target=Windowed)
    assert isinstance(module, FlashCausalSelfAttention)
    assert isinstance(module, Windowed)


def test_nothing_to_replace_is_an_error_that_names_the_target() -> None:
    with pytest.raises(ValueError, match=r"CausalSelfAttention in Linear: nothing was replaced; pass target="):
        replace_attention_with_flash_attention(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="Foreign"):
        replace_attention_with_flash_attention(GPT(config()), target=Foreign)
