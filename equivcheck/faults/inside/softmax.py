"""Faults of the softmax: its axis, its maximum, its sum, its exponential."""

import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.faults.base import inside
from equivcheck.faults.inside.decomposed import Parted

__all__ = ["FAULTS"]


def top(s: Tensor) -> Tensor:
    """The greatest score of each row, a constant for the gradient."""
    return s.detach().amax(-1, keepdim=True)


def running_top(s: Tensor, block: int) -> Tensor:
    """For each key the greatest score up to the end of its block, as in an online softmax."""
    T = s.size(-1)
    end = (torch.arange(T, device=s.device) // block + 1) * block
    return s.detach().cummax(-1).values[..., end.clamp(max=T) - 1]


class SoftmaxOverQueries(Parted):
    """The softmax runs over the queries instead of the keys."""

    def probabilities(self, s: Tensor) -> Tensor:
        return F.softmax(s, dim=-2)


class SoftmaxWithoutMaximum(Parted):
    """The exponential is taken of the bare scores: large ones overflow."""

    def probabilities(self, s: Tensor) -> Tensor:
        e = s.exp()
        return e / e.sum(-1, keepdim=True)


class MaximumStartsAtZero(Parted):
    """The running maximum starts at 0 instead of minus infinity: rows far below it come out zero."""

    def probabilities(self, s: Tensor) -> Tensor:
        e = (s - top(s).clamp(min=0.0)).exp()
        return e / e.sum(-1, keepdim=True).clamp(min=torch.finfo(s.dtype).tiny)


class ScoresClippedAt50(Parted):
    """Scores above 50 count as 50."""

    def probabilities(self, s: Tensor) -> Tensor:
        return F.softmax(s.clamp(max=50.0), dim=-1)


class ScoresSoftlyCapped(Parted):
    """Scores go through 30 tanh(s / 30), as with a soft cap."""

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return 30.0 * (super().scores(q, k) / 30.0).tanh()


class SoftmaxWithASink(Parted):
    """The denominator counts one more key, with score 0 and no value."""

    def probabilities(self, s: Tensor) -> Tensor:
        return F.softmax(F.pad(s, (1, 0)), dim=-1)[..., 1:]


class ExponentialOfARoundedBase(Parted):
    """The exponential is 2^(1.4427 s): log2(e) with five digits, wrong in float32 and float64."""

    def probabilities(self, s: Tensor) -> Tensor:
        e = ((s - top(s)) * 1.4427).exp2()
        return e / e.sum(-1, keepdim=True)


class ExponentialByACubic(Parted):
    """The exponential is a polynomial of degree 3, good for bfloat16 and wrong in float32 and float64."""

    def probabilities(self, s: Tensor) -> Tensor:
        t = ((s - top(s)) * 1.4426950408889634).clamp(min=-200.0)
        f = t - t.detach().floor()
        e = t.detach().floor().exp2() * (1.0 + f * (0.695146 + f * (0.227564 + f * 0.077290)))
        e = e.masked_fill(s == self.fill, 0.0)
        return e / e.sum(-1, keepdim=True)


class TiesCountedOnce(Parted):
    """Of several keys that tie at the maximum only the first is counted."""

    def probabilities(self, s: Tensor) -> Tensor:
        ties = s == top(s)
        return F.softmax(s.masked_fill(ties & (ties.cumsum(-1) > 1), self.fill), dim=-1)


class SmallProbabilitiesDropped(Parted):
    """Probabilities below 10^-4 are set to zero, wrong in float32 and float64."""

    def probabilities(self, s: Tensor) -> Tensor:
        p = super().probabilities(s)
        return p.masked_fill(p < 1e-4, 0.0)


class AccumulatorNotRescaled(Parted):
    """An online softmax by 64 keys does not rescale the sum of values for a greater score in a later block."""

    def probabilities(self, s: Tensor) -> Tensor:
        return (s - running_top(s, 64)).exp() / (s - top(s)).exp().sum(-1, keepdim=True)


class DenominatorNotRescaled(Parted):
    """An online softmax by 64 keys does not rescale the denominator for a greater score in a later block."""

    def probabilities(self, s: Tensor) -> Tensor:
        return (s - top(s)).exp() / (s - running_top(s, 64)).exp().sum(-1, keepdim=True)


class HalvesAveraged(Parted):
    """If T is greater than 128, two halves of the keys have their results averaged, not weighted by their sums."""

    def probabilities(self, s: Tensor) -> Tensor:
        T = s.size(-1)
        if T <= 128:
            return super().probabilities(s)
        first, second = torch.split(s, [T // 2, T - T // 2], dim=-1)
        upper = torch.arange(T, device=s.device)[:, None] < T // 2  # rows that see the first half only
        both = torch.cat((F.softmax(first, dim=-1), F.softmax(second.masked_fill(upper, 0.0), dim=-1)), dim=-1) / 2
        return torch.where(upper, super().probabilities(s), both)


FAULTS = (
    inside("softmax", SoftmaxOverQueries, seen_by=("output", "gradients", "causality")),
    inside("softmax", SoftmaxWithoutMaximum, seen_by=("output",)),
    inside("softmax", MaximumStartsAtZero, seen_by=("output",)),
    inside("softmax", ScoresClippedAt50, seen_by=("output",)),
    inside("softmax", ScoresSoftlyCapped, seen_by=("output", "gradients")),
    inside("softmax", SoftmaxWithASink, seen_by=("output", "gradients")),
    inside("softmax", ExponentialOfARoundedBase, seen_by=("output", "gradients")),
    inside("softmax", ExponentialByACubic, seen_by=("output", "gradients")),
    inside("softmax", TiesCountedOnce, seen_by=("output",)),
    inside("softmax", SmallProbabilitiesDropped, seen_by=("output",)),
    inside("softmax", AccumulatorNotRescaled, seen_by=("output", "gradients")),
    inside("softmax", DenominatorNotRescaled, seen_by=("output", "gradients")),
    inside("softmax", HalvesAveraged, seen_by=("output", "gradients")),
)
