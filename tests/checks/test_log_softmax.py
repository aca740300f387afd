"""An original by `log_softmax` has the budget of one by `softmax`: fused and hand-written attentions are within it."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.cases.case import Case
from equivcheck.checks.values import gradients
from equivcheck.errors import Mismatch
from equivcheck.pairs.resolve import resolve


def scores(q: Tensor, k: Tensor, is_causal: bool, scale: float | None) -> Tensor:
    s = q @ k.transpose(-2, -1) * (q.size(-1) ** -0.5 if scale is None else scale)  # (B, H, T, S)
    return s.masked_fill(~torch.ones(s.shape[-2:], dtype=torch.bool).tril(), -math.inf) if is_causal else s


def by_log_softmax(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False, scale: float | None = None) -> Tensor:
    return F.log_softmax(scores(q, k, is_causal, scale), -1).exp() @ v


def fused(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False, scale: float | None = None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=scale)


def by_hand(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False, scale: float | None = None) -> Tensor:
    s = scores(q, k, is_causal, scale)
    e = (s - s.amax(-1, keepdim=True)).exp()
    return (e / e.sum(-1, keepdim=True)) @ v


def half_a_percent_off(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False, scale: float | None = None) -> Tensor:
    y = fused(q, k, v, is_causal, scale)
    return y + (y * 0.005).detach() + 0.005 * (q - q.detach()).sum()


@pytest.mark.parametrize(
    ("candidate", "case"),
    [
        (fused, "B1-T80-H1-D16-K80-float32-eval-a0-r0-ties-contiguous-s0"),
        (fused, "B1-T3-H1-D13-K3-float64-eval-a0-r0-sharpened-contiguous-s66"),
        (fused, "B1-T12-H1-D4-K12-bfloat16-eval-a0-r0-large_scores-contiguous-s1"),
        (by_hand, "B3-T15-H7-D1-K15-float16-eval-a0-r0-sharpened-contiguous-s3594-S32-full"),
        (by_hand, "B1-T415-H1-D53-K415-float32-eval-a0-r0-zero_rows-contiguous-s1276-c1"),
    ],
)
def test_a_right_candidate_is_within_the_budget_of_log_softmax(candidate: Any, case: str) -> None:
    pair = resolve(by_log_softmax, candidate, kind="function", device="cpu")
    result = gradients(pair, Case.parse(case))
    assert result.judged
    assert result.ratio is not None
    assert math.isfinite(result.ratio)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_wrong_candidate_is_outside_of_the_budget_of_log_softmax(dtype: str) -> None:
    pair = resolve(by_log_softmax, half_a_percent_off, kind="function", device="cpu")
    with pytest.raises(Mismatch):
        gradients(pair, Case(seq_len=12, block_size=12, n_head=2, head_size=8, batch_size=2, dtype=dtype))


@pytest.mark.parametrize("regime", ["large_scores", "tiny", "zero_rows", "ties"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_the_perturbed_runs_of_log_softmax_are_finite(dtype: str, regime: str) -> None:
    pair = resolve(by_log_softmax, fused, kind="function", device="cpu")
    problem = pair.problem(Case(seq_len=12, block_size=12, head_size=4, dtype=dtype, regime=regime, seed=1))
    deviations = problem.truth(gradients=True).sample(refined=True).deviations
    assert set(deviations) == {"output", "grad q", "grad k", "grad v"}
    assert all(bool(value.isfinite().all()) for value in deviations.values())
