"""A replacement can be undone: each attention gets its own class back."""

from collections.abc import Callable

import pytest
import torch
from foreign_attentions import COPIES, Abstract, Foreign, Slotted, attentions, config, foreign, ids
from torch import nn

from equivcheck.attention import (
    CausalSelfAttention,
    FlashCausalSelfAttention,
    replace_attention_with_flash_attention,
    restore_original_attention,
)
from equivcheck.gpt import GPT


@pytest.fixture
def model() -> GPT:
    torch.manual_seed(0)
    model = GPT(config())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model


def test_restoring_gives_the_same_objects_their_classes_back(model: GPT) -> None:
    before = [(m, type(m)) for m in model.modules()]
    replace_attention_with_flash_attention(model)
    assert restore_original_attention(model) is model
    assert [(m, type(m)) for m in model.modules()] == before
    model(ids())
    assert all(m.attention_weights is not None for m in attentions(model))


@pytest.mark.parametrize("copied", COPIES[0::2])
def test_a_copy_is_restored_too(model: GPT, copied: Callable[[nn.Module], nn.Module]) -> None:
    other = restore_original_attention(copied(replace_attention_with_flash_attention(model)))
    assert [type(m) for m in attentions(other)] == [CausalSelfAttention] * 2


@pytest.mark.parametrize("kind", [Foreign, Slotted, Abstract])
def test_each_target_gets_its_own_class_back(kind: type[Foreign]) -> None:
    model = foreign(kind)
    model["other"] = CausalSelfAttention(config())
    before, attributes = list(map(type, model.modules())), set(vars(model["attn"]))
    replace_attention_with_flash_attention(model, target=kind)
    replace_attention_with_flash_attention(model)
    restore_original_attention(model)
    assert list(map(type, model.modules())) == before
    assert set(vars(model["attn"])) == attributes


def test_a_module_built_as_a_fused_one_becomes_an_original() -> None:
    module = FlashCausalSelfAttention(config())
    assert type(restore_original_attention(module)) is CausalSelfAttention


def test_restoring_twice_is_restoring_once(model: GPT) -> None:
    restore_original_attention(replace_attention_with_flash_attention(model))
    assert restore_original_attention(model) is model


def test_nothing_to_restore_is_an_error_that_says_what_is_there() -> None:
    with pytest.raises(
        ValueError, match=r"FlashCausalSelfAttention in Linear: nothing was restored; its modules are Linear"
    ):
        restore_original_attention(nn.Linear(2, 2))


class Faster(FlashCausalSelfAttention):
    """What somebody made of the fused attention."""


def test_a_subclass_of_the_fused_attention_is_left_alone_and_named() -> None:
    module = Faster(config())
    for change in (replace_attention_with_flash_attention, restore_original_attention):
        with pytest.warns(UserWarning, match=r"the model itself \(Faster\)"):
            assert type(change(module)) is Faster
