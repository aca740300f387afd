"""What is different one way round is different the other, and what is the same is the same."""

from typing import Any

import pytest
import torch
from searches import CASE, different, eager, fused
from torch import Tensor

from equivcheck.checks import causality, values
from equivcheck.errors import Mismatch
from equivcheck.pairs.resolve import resolve


def wide(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    dtype = torch.promote_types(q.dtype, torch.float32)
    return eager(q.to(dtype), k.to(dtype), v.to(dtype), is_causal=is_causal, scale=scale).to(q.dtype)


def leaking(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    s = q @ k.mT * (q.size(-1) ** -0.5 if scale is None else scale)  # (B, H, T, S)
    if is_causal:
        s = s - 1e4 * torch.ones(s.shape[-2:], dtype=s.dtype, device=s.device).triu(1)
    return s.softmax(-1) @ v


def off_in_bfloat16(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    return eager(q, k, v, is_causal=is_causal, scale=scale) * (1.1 if q.dtype is torch.bfloat16 else 1.0)


def off_past_32(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    return eager(q, k, v, is_causal=is_causal, scale=scale) * (1.1 if q.size(-2) > 32 else 1.0)


def never_causal(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    return eager(q, k, v, is_causal=False, scale=scale)


@pytest.mark.parametrize(
    "other", [eager, wide, leaking, off_in_bfloat16, off_past_32, never_causal], ids=lambda f: f.__name__
)
def test_what_is_different_one_way_round_is_different_the_other(other: Any) -> None:
    checks = ("output", "causality")
    wrong = other not in (eager, wide)
    assert different(fused, other, *checks) == different(other, fused, *checks) == wrong


def test_an_original_beyond_its_budget_is_held_against_the_candidate() -> None:
    subject = resolve(off_in_bfloat16, eager, kind="function", device="cpu")
    with pytest.raises(Mismatch, match=r"the original itself is .* times further from what it gives in float64"):
        values.output(subject, CASE.but(dtype="bfloat16", regime="near_initial"))


def test_two_that_leave_their_budget_together_are_the_same() -> None:
    def again(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
        return off_in_bfloat16(q, k, v, is_causal=is_causal, scale=scale)

    subject = resolve(off_in_bfloat16, again, kind="function", device="cpu")
    values.output(subject, CASE.but(dtype="bfloat16", regime="near_initial"))


def test_loud_later_values_are_not_asked_of_what_masks_nothing() -> None:
    def spelled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return eager(q, k, v, is_causal=False)

    def kernel(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return fused(q, k, v, is_causal=False)

    subject = resolve(spelled, kernel, kind="function", device="cpu")
    for seed in range(4):
        result = causality.causality(subject, CASE.but(seq_len=13, block_size=13, seed=seed))
        assert "the original is not causal" in result.notes
        assert result.ratio is not None
