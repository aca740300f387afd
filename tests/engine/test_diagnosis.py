"""Where one reading of the problem is the whole difference, the message names it; where it is not, nothing is named."""

import math
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import equivcheck
from equivcheck.adapters.kernels import heads_last
from equivcheck.engine.causes.options import Reading, attention


def original(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return attention(Reading(), q, k, v, **options)


def padding_gives_zeros(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return attention(Reading(empty="zero"), q, k, v, **options)


def bottom_right(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, scale: float, dropout_p: float = 0.0) -> Tensor:
    T, S = q.size(-2), k.size(-2)
    s = (q @ k.transpose(-2, -1)) * scale
    hidden = ~torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T if is_causal else S)
    return s.masked_fill(hidden, -math.inf).softmax(-1) @ v


def inverted(q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
    """As nn.MultiheadAttention has it: True is hidden."""
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        attn_mask = ~attn_mask
    return original(q, k, v, attn_mask=attn_mask, **options)


def tiled(q: Tensor, k: Tensor, v: Tensor, *, enable_gqa: bool = False, **options: Any) -> Tensor:
    group = q.size(1) // k.size(1)
    return original(q, k.repeat(1, group, 1, 1), v.repeat(1, group, 1, 1), **options)


def finite_fill(q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
    """A mask of the smallest finite number: a query that sees no key sees all of them alike."""
    if attn_mask is not None and attn_mask.dtype is torch.bool:
        attn_mask = torch.zeros(attn_mask.shape, dtype=q.dtype, device=q.device).masked_fill(
            ~attn_mask, torch.finfo(q.dtype).min
        )
    return original(q, k, v, attn_mask=attn_mask, **options)


def flash_attn_like(q: Tensor, k: Tensor, v: Tensor, dropout_p: float, softmax_scale: float, causal: bool) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    T, S = q.size(-2), k.size(-2)
    seen = torch.ones(T, S, dtype=torch.bool, device=q.device).tril(S - T) if causal else None
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=softmax_scale, enable_gqa=True)
    return y.transpose(1, 2)


def message_of(reference: Any, candidate: Any, check: str = "output", device: str = "cpu") -> str:
    report = equivcheck.verify(reference, candidate, device=device, profile="quick", checks=[check])
    counterexample = report.results[0].counterexample
    assert counterexample is not None
    return counterexample.message


@pytest.mark.parametrize(
    ("check", "reference", "candidate", "named"),
    [
        (
            "output",
            original,
            bottom_right,
            "the causal mask is aligned bottom-right, as flash-attn does; in the original the causal mask is aligned top-left",
        ),
        ("gradients", original, bottom_right, "the causal mask is aligned bottom-right, as flash-attn does"),
        ("output", original, inverted, "the boolean mask is inverted: True is hidden"),
        ("gradients", original, inverted, "the boolean mask is inverted: True is hidden"),
        ("output", original, tiled, "grouped heads are tiled: .* in the original grouped heads are interleaved"),
        (
            "output",
            padding_gives_zeros,
            finite_fill,
            "a query that sees no key gives the mean of .*; in the original a query that sees no key gives zeros",
        ),
        ("output", padding_gives_zeros, heads_last(flash_attn_like), "the causal mask is aligned bottom-right"),
        ("output", original, heads_last(flash_attn_like), "the causal mask is aligned bottom-right"),
    ],
)
def test_the_reading_that_is_the_whole_difference_is_named(
    check: str, reference: Any, candidate: Any, named: str
) -> None:
    assert re.search(f"cause: .*{named}", message_of(reference, candidate, check))


@pytest.mark.gpu
def test_a_difference_is_named_on_a_gpu_too(device: str) -> None:
    """There the original's truth is found on the CPU, and the readings' on the GPU."""
    assert "cause: " in message_of(original, bottom_right, device=device)


def test_nothing_is_named_where_no_reading_is_the_whole_difference() -> None:
    def wrong(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        y = original(q, k, v, **options)
        return torch.cat((y[:-1], y[-1:] * 1.01))  # of the last sample

    assert "cause: " not in message_of(original, wrong)


def test_a_right_function_with_all_options_is_equivalent() -> None:
    def undropped(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        is_causal: bool,
        scale: float,
        attn_mask: Tensor | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        return original(
            q, k, v, is_causal=is_causal, scale=scale, attn_mask=attn_mask, enable_gqa=enable_gqa, dropout_p=0.0
        )

    report = equivcheck.assert_equivalent(
        undropped, F.scaled_dot_product_attention, device="cpu", profile="quick", checks=["output", "gradients"]
    )
    planted = set(report.sensitivity.planted)
    assert {"boolean-mask-inverted", "grouped-heads-tiled", "causal-mask-at-the-other-corner"} <= planted
    assert any("causal with a boolean mask" in note for note in report.results[0].notes)
