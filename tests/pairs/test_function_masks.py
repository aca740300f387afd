"""Masks of functions: of every shape that both take, and what goes wrong with one of them is seen."""

from typing import Any

import pytest
import torch
from torch import Tensor

import equivcheck
from equivcheck.cases.case import Case
from equivcheck.cases.tensors import attn_mask
from equivcheck.cases.words import MASKS
from equivcheck.engine.causes.options import Reading, attention
from equivcheck.pairs.resolve import resolve
from equivcheck.report.model import Report

SHAPES = {
    **dict.fromkeys(("right", "left", "middle"), (3, 1, 1, 7)),
    **dict.fromkeys(("some", "rows", "additive", "both"), (3, 1, 5, 7)),
    **dict.fromkeys(("heads", "bias"), (3, 2, 5, 7)),
    "plane": (5, 7),
}


def original(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return attention(Reading(), q, k, v, **options)


def of_the_first_head(q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
    return original(q, k, v, attn_mask=attn_mask if attn_mask is None else attn_mask[:, :1], **options)


def transposed_in_two_dimensions(
    q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None = None, **options: Any
) -> Tensor:
    if attn_mask is not None and attn_mask.dim() == 2 and attn_mask.size(0) == attn_mask.size(1):
        attn_mask = attn_mask.t() | torch.eye(attn_mask.size(0), dtype=torch.bool)
    return original(q, k, v, attn_mask=attn_mask, **options)


def of_four_dimensions(q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
    if attn_mask is not None and attn_mask.dim() != 4:
        raise ValueError("attn_mask must have four dimensions")
    return original(q, k, v, attn_mask=attn_mask, **options)


def judged(candidate: Any) -> Report:
    return equivcheck.verify(original, candidate, device="cpu", checks=["output"], seed=3)


@pytest.mark.parametrize("mask", MASKS[1:])
def test_every_mask_broadcasts_and_hides_no_row_unless_it_says_so(mask: str) -> None:
    made = attn_mask(Case(batch_size=3, seq_len=5, n_head=2, block_size=5, kv_len=7, mask=mask))
    assert made is not None
    assert made.expand(3, 2, 5, 7).shape == (3, 2, 5, 7)
    assert tuple(made.shape) == SHAPES[mask]
    if mask in ("heads", "plane", "some"):
        assert made.any(-1).all()
        assert not made.all()
    if mask in ("heads", "bias"):
        assert not torch.equal(made[:, 0], made[:, 1])


@pytest.mark.parametrize("candidate", [of_the_first_head, transposed_in_two_dimensions])
def test_a_mask_of_one_shape_that_is_misread_is_a_small_counterexample(candidate: Any) -> None:
    report = judged(candidate)
    assert report.verdict == "different"
    found = report.results[0].counterexample
    assert found is not None
    case = Case.parse(found.case)
    assert case.mask
    assert case.batch_size == 1
    assert case.n_head * case.seq_len <= 4


def test_a_shape_that_only_the_original_takes_is_a_note() -> None:
    assert judged(original).equivalent
    report = judged(of_four_dimensions)
    assert report.equivalent, report.sensitivity
    assert any("a boolean mask of two dimensions (ValueError" in note for note in report.results[0].notes)


def test_masks_of_every_shape_are_tried_where_such_masks_are_taken_at_all() -> None:
    def without(q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
        if attn_mask is not None:
            raise ValueError("no masks here")
        return original(q, k, v, **options)

    features = resolve(original, original, kind="function", device="cpu").features
    assert {"mask by heads", "plain mask", "bias by heads"} <= features
    refusing = resolve(original, without, kind="function", device="cpu")
    assert not {"mask by heads", "plain mask", "bias by heads"} & refusing.features
    assert not any("dimensions" in note for note in refusing.notes)


def swallowing(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return original(q, k, v, is_causal=options["is_causal"], scale=q.size(-1) ** -0.5, dropout_p=0.0)


def test_an_option_that_the_original_ignores_makes_nothing_insensitive() -> None:
    subject = resolve(swallowing, swallowing, kind="function", device="cpu")
    assert subject.ignored_options == {"dropout_p", "scale", "attn_mask"}
    assert sum("changes nothing in the original" in note for note in subject.notes) == 3
    report = equivcheck.verify(swallowing, swallowing, device="cpu", checks=["output", "dropout"], profile="quick")
    assert report.equivalent
    assert not {"scale-ignored", "mask-ignored", "dropout-left-on"} & set(report.sensitivity.planted)


def test_a_candidate_that_takes_notice_of_it_is_different() -> None:
    def masking(q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
        return original(q, k, v, attn_mask=attn_mask, **options | {"scale": q.size(-1) ** -0.5, "dropout_p": 0.0})

    def scaling(q: Tensor, k: Tensor, v: Tensor, *, scale: float, **options: Any) -> Tensor:
        return original(q, k, v, is_causal=options["is_causal"], scale=scale, dropout_p=0.0)

    for candidate in (masking, scaling):
        report = equivcheck.verify(swallowing, candidate, device="cpu", checks=["output"], profile="quick")
        assert report.verdict == "different"
