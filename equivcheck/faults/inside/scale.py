"""Faults of the factor 1/sqrt(D) between queries and keys."""

import math

import torch
from torch import Tensor

from equivcheck.faults.base import inside
from equivcheck.faults.inside.decomposed import Parted

__all__ = ["FAULTS"]


class ScaleOfTheEmbedding(Parted):
    """Scores are divided by sqrt(C) instead of sqrt(D): wrong with more than one head."""

    def scale(self, q: Tensor) -> float:
        return 1.0 / math.sqrt(q.size(1) * q.size(-1))


class ScaleMissing(Parted):
    """Scores are not scaled at all: wrong for every head size but 1."""

    def scale(self, q: Tensor) -> float:
        return 1.0


class ScaleTwice(Parted):
    """Scores are scaled twice: wrong for every head size but 1."""

    def scale(self, q: Tensor) -> float:
        return super().scale(q) ** 2


class ScaleZero(Parted):
    """A scale of 0, which should mean the default, is used as it is: attention is uniform."""

    def scale(self, q: Tensor) -> float:
        return 0.0


class ScaleOnePercentOff(Parted):
    """The scale is 1 % too large."""

    def scale(self, q: Tensor) -> float:
        return super().scale(q) * 1.01


class ScaleMissingInFloat32(Parted):
    """Scores are not scaled in float32; every other dtype is right."""

    def scale(self, q: Tensor) -> float:
        return 1.0 if q.dtype == torch.float32 else super().scale(q)


class ScaleOfThePaddedHead(Parted):
    """The head size is rounded up to a power of two before the square root is taken."""

    def scale(self, q: Tensor) -> float:
        return 1.0 / math.sqrt(1 << (q.size(-1) - 1).bit_length())


class ScaleOfPaddedHeads(Parted):
    """The head size is computed from a number of heads rounded up to a power of two: wrong for 3, 5, 6, 7 heads."""

    def scale(self, q: Tensor) -> float:
        return math.sqrt((1 << (q.size(1) - 1).bit_length()) / q.size(1)) * super().scale(q)


class ScaleRoundedToBfloat16(Parted):
    """The scale is rounded to bfloat16, wrong in float32 and float64 unless D is a power of four."""

    def scale(self, q: Tensor) -> float:
        return float(torch.tensor(super().scale(q), dtype=torch.bfloat16))


class ScaleMissesTheQueryBias(Parted):
    """The scale is folded into the weight of the query and not into its bias."""

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().heads(x)
        bias = self.query.bias.view(q.size(1), 1, q.size(-1))  # (nh, 1, hs)
        return q + bias * (1.0 / self.scale(q) - 1.0), k, v


FAULTS = (
    inside("scale", ScaleOfTheEmbedding, seen_by=("output", "gradients", "logits")),
    inside("scale", ScaleMissing, seen_by=("output", "gradients")),
    inside("scale", ScaleTwice, seen_by=("output", "gradients")),
    inside("scale", ScaleZero, seen_by=("output", "gradients")),
    inside("scale", ScaleOnePercentOff, seen_by=("output", "gradients")),
    inside("scale", ScaleMissingInFloat32, seen_by=("output", "gradients")),
    inside("scale", ScaleOfThePaddedHead, seen_by=("output", "gradients")),
    inside("scale", ScaleOfPaddedHeads, seen_by=("output", "gradients")),
    inside("scale", ScaleRoundedToBfloat16, seen_by=("output", "gradients")),
    inside("scale", ScaleMissesTheQueryBias, seen_by=("output", "gradients")),
)
