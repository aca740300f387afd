"""Masks that forward takes and no case passes are named once, and only those."""

from typing import Any

import pytest
from torch import Tensor

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.gpt import GPT
from equivcheck.pairs.resolve import resolve

ONE = "forward takes key_padding_mask, and no case passes it: what it does was not judged"


class Padded(CausalSelfAttention):
    def forward(self, x: Tensor, key_padding_mask: Tensor | None = None) -> Tensor:
        return super().forward(x)


class Packed(CausalSelfAttention):
    def forward(
        self, x: Tensor, attn_mask: Any = None, flash: bool = False, cu_seqlens: Any = None, position_ids: Any = None
    ) -> Tensor:
        return super().forward(x)


class PaddedGPT(GPT):
    def forward(self, idx: Tensor, targets: Any = None, attention_mask: Any = None) -> Any:
        return super().forward(idx, targets)


class InPlaceOfThree(CausalSelfAttention):
    def forward(self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Any = None) -> Tensor:
        return super().forward(query)


def notes(original: Any, candidate: Any = FlashCausalSelfAttention, **adaptation: Any) -> tuple[str, ...]:
    return resolve(original, candidate, kind="auto", device="cpu", adaptation=adaptation).notes


@pytest.mark.parametrize("original", [Padded, InPlaceOfThree])
def test_a_mask_that_no_case_passes_is_named(original: Any) -> None:
    assert notes(original) == (ONE,)


def test_several_masks_are_named_in_one_note() -> None:
    words = "forward takes attn_mask, cu_seqlens and position_ids, and no case passes them: what they do was not judged"
    assert notes(Packed) == (words,)


def test_a_mask_of_a_model_is_named_and_targets_are_not() -> None:
    assert notes(PaddedGPT, GPT) == (ONE.replace("key_padding_mask", "attention_mask"),)


@pytest.mark.parametrize("passed", [lambda x: (x, None), lambda x: {"x": x, "key_padding_mask": None}])
def test_a_mask_that_inputs_passes_is_not_named(passed: Any) -> None:
    assert notes(Padded, Padded, inputs=passed) == ()
    assert notes(Padded, Padded, inputs=lambda x: x) == (ONE,)


@pytest.mark.parametrize("original", [CausalSelfAttention, GPT])
def test_an_original_without_masks_has_no_note(original: Any) -> None:
    assert notes(original, original) == ()
