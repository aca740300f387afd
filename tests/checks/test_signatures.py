"""What a function or a forward pass is called with: more that it needs is a difference, less that it takes is said."""

import inspect
from typing import Any

import pytest
import torch.nn.functional as F
from searches import different, eager, fused
from torch import Tensor

import equivcheck
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.checks.base.signatures import refused_call
from equivcheck.report.closing_lines import verdict_line


def needs_a_window(q: Tensor, k: Tensor, v: Tensor, window: int, *, is_causal: bool = False) -> Tensor:
    return fused(q, k, v, is_causal=is_causal)


def takes_few_heads(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    assert q.size(-1) in (16, 32, 64), f"HEAD_DIM {q.size(-1)}"
    return fused(q, k, v, is_causal=is_causal, scale=scale)


def test_what_a_function_alone_needs_is_a_difference() -> None:
    report = equivcheck.verify(eager, needs_a_window, device="cpu", profile="quick", checks=["output"])
    assert report.verdict == "different"
    assert report.results[0].counterexample is not None
    assert "missing 1 required positional argument: 'window'" in report.results[0].counterexample.message


def test_head_sizes_that_a_function_alone_refuses_are_unsupported() -> None:
    report = equivcheck.verify(eager, takes_few_heads, device="cpu", profile="quick", checks=["output"])
    assert report.verdict == "equivalent"
    assert any("HEAD_DIM" in what for what in report.results[0].unsupported)


def test_options_that_the_original_alone_takes_stand_in_the_closing_line() -> None:
    def without_scale(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False) -> Tensor:
        return fused(q, k, v, is_causal=is_causal)

    report = equivcheck.verify(eager, without_scale, device="cpu", profile="quick", checks=["output"])
    assert report.verdict == "equivalent"
    assert "not judged, as the original alone takes them: scale" in verdict_line(report)


def test_a_bidirectional_function_needs_no_fault_of_a_causal_one() -> None:
    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return eager(q, k, v)

    report = equivcheck.verify(
        plain, F.scaled_dot_product_attention, device="cpu", profile="quick", checks=["output", "gradients"]
    )
    assert report.verdict == "equivalent"
    assert "causal-mask-at-the-other-corner" in report.sensitivity.without_effect


class PassesOn(CausalSelfAttention):
    def forward(self, *args: Any, **kwargs: Any) -> Tensor:  # type: ignore[override]  # as wrappers have it
        return super().forward(*args, **kwargs)


class NeedsAMask(FlashCausalSelfAttention):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:  # type: ignore[override]  # that is the difference
        return super().forward(x)


class NeedsAWindow(FlashCausalSelfAttention):
    def __init__(self, config: Any, window: int) -> None:
        super().__init__(config)


def test_an_original_that_passes_on_what_it_is_given_takes_everything() -> None:
    assert not different(PassesOn, FlashCausalSelfAttention, "interface")


@pytest.mark.parametrize("candidate", [NeedsAMask, NeedsAWindow])
def test_one_more_required_argument_is_a_difference(candidate: Any) -> None:
    assert different(CausalSelfAttention, candidate, "output")
    assert different(CausalSelfAttention, candidate, "interface")


@pytest.mark.parametrize(
    ("reference", "candidate", "fits"),
    [
        (lambda x, mask=None: 0, lambda x, mask=None, more=1: 0, True),
        (lambda x, mask=None: 0, lambda x, **options: 0, False),  # the mask can be given by position
        (lambda x, *, mask=None: 0, lambda x, **options: 0, True),
        (lambda x, mask=None, bias=None: 0, lambda x, bias=None, mask=None: 0, False),
        (lambda x, mask=None: 0, lambda *args, **kwargs: 0, True),
        (lambda *args, **kwargs: 0, lambda x: 0, True),
        (lambda x: 0, lambda hidden: 0, False),  # by its name
        (lambda x, /: 0, lambda hidden: 0, True),
        (lambda x: 0, lambda x, y: 0, False),
    ],
)
def test_signatures_bind_as_python_binds(reference: Any, candidate: Any, fits: bool) -> None:
    refused = refused_call(inspect.signature(reference), inspect.signature(candidate))
    assert (refused == "") == fits
