"""Replacing the attentions of another project's class: they are fused, and stay of their class."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from foreign_attentions import COPIES, Abstract, Foreign, Slotted, Windowed, config, foreign
from torch import nn

from equivcheck.attention import (
    FlashCausalSelfAttention,
    replace_attention_with_flash_attention,
    restore_original_attention,
)


@pytest.mark.parametrize("kind", [Foreign, Slotted, Abstract, Windowed])
def test_a_target_of_the_same_attributes_is_fused_and_stays_of_its_class(kind: Any) -> None:
    model = foreign(kind) if issubclass(kind, Foreign) else nn.ModuleDict({"attn": kind(config())}).eval()
    model.double()
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    before, state = model["attn"](x), list(model.state_dict())
    assert replace_attention_with_flash_attention(model, target=kind) is model
    assert isinstance(model["attn"], FlashCausalSelfAttention)
    assert isinstance(model["attn"], kind)
    torch.testing.assert_close(model["attn"](x), before, rtol=1e-10, atol=1e-10)
    assert list(model.state_dict()) == state


def test_methods_and_properties_of_a_target_live_on() -> None:
    attention = replace_attention_with_flash_attention(foreign(), target=Foreign)["attn"]
    assert (attention.n_head, attention.head_size()) == (2, 4)


def test_an_edited_mask_of_a_target_is_obeyed() -> None:
    model = foreign().double()
    fused = replace_attention_with_flash_attention(copy.deepcopy(model), target=Foreign)
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    for m in (model, fused):
        m["attn"].mask[..., :3, :3] = True
    torch.testing.assert_close(fused["attn"](x), model["attn"](x), rtol=1e-10, atol=1e-10)


def test_replacing_a_target_twice_is_replacing_it_once() -> None:
    model = replace_attention_with_flash_attention(foreign(), target=Foreign)
    kind = type(model["attn"])
    assert type(replace_attention_with_flash_attention(model, target=Foreign)["attn"]) is kind


@pytest.mark.parametrize("copied", COPIES)
def test_a_copy_of_a_replaced_target_is_replaced_and_can_be_restored(copied: Callable[[nn.Module], nn.Module]) -> None:
    model = replace_attention_with_flash_attention(foreign(), target=Foreign)
    other = copied(model["attn"])
    assert type(other) is type(model["attn"])
    x = torch.randn(2, 5, 8)
    assert torch.equal(other(x), model["attn"](x))
    assert type(restore_original_attention(other)) is Foreign
