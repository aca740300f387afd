"""Dropouts and projections are called as they are: rates, modes, hooks, adapters and what stands in their place."""

import copy
from typing import Any

import pytest
import torch
from drop_in import Change, asked_of_the_kernel, inputs, pair, results, same
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention, replace_attention_with_flash_attention

# --- dropout ---------------------------------------------------------------------------------------------------------


def test_every_call_obeys_rates_and_modes_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    _, flash = pair()
    calls = asked_of_the_kernel(monkeypatch)
    flash.train()(inputs())
    flash.attn_drop.p = 0.6
    flash(inputs())
    flash.attn_drop.eval()
    flash(inputs())
    flash.eval().attn_drop.train()
    flash(inputs())
    assert [call["dropout_p"] for call in calls] == [0.3, 0.6, 0.0, 0.6]
    flash.attn_drop.eval()
    flash.resid_drop.train().p = 1.0
    assert not flash(inputs()).any()


class Halving(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return x / 2


def hooked_drop(module: CausalSelfAttention) -> None:
    module.attn_drop.register_forward_hook(lambda _, __, p: p / 2)


def pre_hooked_drop(module: CausalSelfAttention) -> None:
    module.attn_drop.register_forward_pre_hook(lambda _, args: (args[0] / 2,))


def instance_drop(module: CausalSelfAttention) -> None:
    module.attn_drop.forward = lambda p: p / 2


def replaced_drop(module: CausalSelfAttention) -> None:
    module.attn_drop = Halving()


def absent_drop(module: CausalSelfAttention) -> None:
    module.attn_drop = nn.Identity()


def total_drop(module: CausalSelfAttention) -> None:
    module.attn_drop.train().p = 1.0


@pytest.mark.parametrize(
    "change", [hooked_drop, pre_hooked_drop, instance_drop, replaced_drop, absent_drop, total_drop]
)
def test_what_stands_in_the_place_of_attention_dropout_is_obeyed(change: Change) -> None:
    original, flash = pair(change)
    same(results(flash, inputs()), results(original, inputs()))
    assert flash.attention_weights is None


def test_a_rate_that_is_none_is_refused_as_the_original_refuses_it() -> None:
    for module in pair():
        module.attn_drop.p = 1.5
        with pytest.raises(ValueError, match=r"1\.5"):
            module(inputs())


# --- what sits on the projections ------------------------------------------------------------------------------------


class LowRank(nn.Module):
    """A linear with an adapter beside it, as LoRA has it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(inputs(2, base.in_features))
        self.up = nn.Parameter(inputs(base.out_features, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.down.mT @ self.up.mT


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).mT


PROJECTIONS = ("key", "query", "value", "proj")


def with_adapter(module: nn.Module, name: str) -> None:
    setattr(module, name, LowRank(module.get_submodule(name)))


def with_hooks(module: nn.Module, name: str) -> None:
    layer = module.get_submodule(name)
    layer.register_forward_pre_hook(lambda _, args: (args[0].sin(),))
    layer.register_forward_hook(lambda _, __, y: y * 2)
    layer.register_full_backward_hook(lambda _, given, ___: tuple(g * 3 for g in given))


def with_a_parametrization(module: nn.Module, name: str) -> None:
    parametrize.register_parametrization(module.get_submodule(name), "weight", Symmetric())


def with_a_weight_norm(module: nn.Module, name: str) -> None:
    parametrizations.weight_norm(module.get_submodule(name))


ON_PROJECTIONS = [with_adapter, with_hooks, with_a_parametrization, with_a_weight_norm]


@pytest.mark.parametrize("name", PROJECTIONS)
@pytest.mark.parametrize("put", ON_PROJECTIONS)
def test_what_is_put_on_a_projection_acts_as_in_the_original(put: Any, name: str) -> None:
    original, flash = pair(lambda module: put(module, name))
    same(results(flash, inputs()), results(original, inputs()))


@pytest.mark.parametrize("put", ON_PROJECTIONS)
def test_what_is_on_the_projections_lives_through_replacing(put: Any) -> None:
    original, _ = pair()
    for name in PROJECTIONS:
        put(original, name)
    before = results(original, inputs())
    same(results(replace_attention_with_flash_attention(original), inputs()), before)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("quantise_first", [True, False])
def test_quantised_linears_give_what_they_give_in_the_original(quantise_first: bool) -> None:
    def quantised(module: nn.Module) -> nn.Module:
        return torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8)

    original, flash = pair()
    expected = quantised(original.float())
    ours = (
        replace_attention_with_flash_attention(copy.deepcopy(expected)) if quantise_first else quantised(flash.float())
    )
    assert type(ours) is FlashCausalSelfAttention
    assert type(ours.key) is not nn.Linear
    x = inputs(dtype=torch.float32)
    its = expected(x)
    # an activation that rounding moves across the middle between two levels is off by one of the 255 levels of its row
    torch.testing.assert_close(ours(x), its, rtol=0, atol=float((its.max() - its.min()) / 64))
