"""Distributions over masks: what is random may differ by chance, and what is not random by its budget."""

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from check_cases import PLAIN, pair
from torch import Tensor, nn

from equivcheck.checks.dropout.moments import compare_moments, small_sizes
from equivcheck.errors import Mismatch
from equivcheck.faults.correct.recomputed import CheckpointedReentrantly
from equivcheck.pairs.resolve import resolve


def test_the_distribution_of_what_refuses_autograd_grad_is_the_originals() -> None:
    subject = pair(CheckpointedReentrantly)
    case = PLAIN.but(training=True, attn_pdrop=0.1)
    problem = subject.problem(case.but(**small_sizes(case)))
    assert (compare_moments(problem, problem.reference, problem.candidate).ratio or 0.0) <= 1


class _Cancelling(nn.Module):
    """What is added is taken off again, and takes digits with it; `early`: before it meets the input."""

    early = False

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.drop = nn.Dropout(config.attn_pdrop)

    def forward(self, x: Tensor) -> Tensor:
        much = torch.full_like(x, 1e6)
        return self.drop(x + (much - much) if self.early else (x + much) - much)


class _CancellingEarly(_Cancelling):
    early = True


class _OnePercentMore(_Cancelling):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 1.01


def test_what_is_not_random_is_held_to_the_budget_and_not_to_chance() -> None:
    case = PLAIN.but(dtype="float64", training=False, attn_pdrop=0.5)
    for candidate in (_CancellingEarly, _OnePercentMore):
        subject = resolve(_Cancelling, candidate, kind="module", device="cpu")
        problem = subject.problem(case.but(**small_sizes(case)))
        with (
            nullcontext() if candidate is _CancellingEarly else pytest.raises(Mismatch, match="further from the oracle")
        ):
            assert (compare_moments(problem, problem.reference, problem.candidate).ratio or 0.0) <= 1


class _Dropping(nn.Module):
    """Drops what `mask` says."""

    mask: Any = staticmethod(F.dropout)

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.drop = nn.Dropout(config.attn_pdrop)

    def forward(self, x: Tensor) -> Tensor:
        return x * type(self).mask(torch.ones_like(x), self.drop.p, self.training)


def _sharing(x: Tensor, p: float, training: bool) -> Tensor:
    """On purpose: one mask for the whole batch."""
    return (torch.rand(x[:1].shape) >= p).to(x.dtype).expand(x.shape) / (1 - p) if training else x


def _independent(x: Tensor, p: float, training: bool) -> Tensor:
    return (torch.rand(x.shape) >= p).to(x.dtype) / (1 - p) if training else x


class _HalfAgain:
    """A generator that is less random than it should be: half of each mask is that of the call before, in another place."""

    def __init__(self) -> None:
        self.latest: dict[torch.Size, Tensor] = {}

    def __call__(self, x: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        drawn = torch.rand(x.shape)
        latest = self.latest.get(x.shape, torch.rand(x.shape))
        half = x.shape[-1] // 2
        self.latest[x.shape] = drawn = torch.cat([latest[..., x.shape[-1] - half :], drawn[..., half:]], -1)
        return x * (drawn >= p) / (1 - p) if training else x


def _hold_the_distribution(original: Any, candidate: Any) -> float:
    def attention(mask: Any) -> type[nn.Module]:
        return type("Dropping", (_Dropping,), {"mask": staticmethod(mask)})

    subject = resolve(attention(original), attention(candidate), kind="module", device="cpu")
    case = PLAIN.but(training=True, attn_pdrop=0.5)
    problem = subject.problem(case.but(**small_sizes(case)))
    return compare_moments(problem, problem.reference, problem.candidate).ratio or 0.0


def test_independent_masks_pass_where_torchs_own_are_less_independent_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(F, "dropout", _HalfAgain())
    assert _hold_the_distribution(_HalfAgain(), _independent) <= 1


def test_masks_that_an_original_shares_on_purpose_must_be_shared() -> None:
    with pytest.raises(Mismatch, match="is not the original"):
        _hold_the_distribution(_sharing, _independent)
    with pytest.raises(Mismatch, match="between successive calls"):
        _hold_the_distribution(_HalfAgain(), _independent)  # torch's own are better than that
