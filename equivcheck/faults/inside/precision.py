"""Faults of the arithmetic: too few digits, rounding in the wrong direction, a sum that stops growing."""

import torch
from torch import Tensor

from equivcheck.faults.base import inside
from equivcheck.faults.gradient_edits import as_if
from equivcheck.faults.inside.decomposed import Parted

__all__ = ["FAULTS"]

Heads = tuple[Tensor, Tensor, Tensor]  # q, k, v, each (B, nh, T, hs)

LOW = {torch.bfloat16: 16, torch.float16: 13}  # how many bits of a float32 do not fit


def through(t: Tensor, dtype: torch.dtype) -> Tensor:
    """`t` rounded to another dtype and back."""
    return t.to(dtype).to(t.dtype)


def chopped(t: Tensor, bits: int) -> Tensor:
    """A float32 with its last bits cut off, rounded toward zero; the gradient passes through."""
    return as_if((t.detach().contiguous().view(torch.int32) & -(1 << bits)).view(torch.float32), t)


class Float32ThroughHalf(Parted):
    """In float32 queries, keys and values are rounded to float16."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = (through(t, torch.float16) if t.dtype == torch.float32 else t for t in super().heads(x))
        return q, k, v


class Float32ThroughTF32(Parted):
    """In float32 queries and keys lose the last 13 bits, as in TF32 without permission."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        return (chopped(q, 13), chopped(k, 13), v) if q.dtype == torch.float32 else (q, k, v)


class Float64ThroughFloat32(Parted):
    """In float64 scores and softmax are computed in float32."""

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        return super().weights(q.float(), k.float()).to(q.dtype) if q.dtype == torch.float64 else super().weights(q, k)


class Bfloat16ThroughHalf(Parted):
    """In bfloat16 queries, keys and values go through float16, which overflows past 65504 and underflows below 6e-8."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = (through(t, torch.float16) if t.dtype == torch.bfloat16 else t for t in super().heads(x))
        return q, k, v


class EvalThroughBfloat16(Parted):
    """In eval mode the values are rounded to bfloat16, wrong in float32 and float64."""

    def mix(self, p: Tensor, v: Tensor) -> Tensor:
        return super().mix(p, v if self.training else through(v, torch.bfloat16))


class ProbabilitiesInBfloat16(Parted):
    """The probabilities are rounded to bfloat16 in every dtype, wrong in float32 and float64."""

    def mix(self, p: Tensor, v: Tensor) -> Tensor:
        return super().mix(through(p, torch.bfloat16), v)


class ProbabilitiesTowardZero(Parted):
    """In bfloat16 and float16 the probabilities are rounded toward zero instead of to the nearest."""

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        if q.dtype not in LOW:
            return super().weights(q, k)
        p = self.probabilities(self.masked(self.scores(q.float(), k.float())))
        return self.dropped(chopped(p, LOW[q.dtype]).to(q.dtype))


class MixTowardZero(Parted):
    """In bfloat16 and float16 the mixed values are rounded toward zero instead of to the nearest."""

    def mix(self, p: Tensor, v: Tensor) -> Tensor:
        if v.dtype not in LOW:
            return super().mix(p, v)
        return chopped(super().mix(p.float(), v.float()), LOW[v.dtype]).to(v.dtype)


class DenominatorStandsStill(Parted):
    """The exponentials are summed key by key in the input's dtype: in bfloat16 the sum stops growing at 256."""

    def probabilities(self, s: Tensor) -> Tensor:
        e = (s - s.detach().amax(-1, keepdim=True)).exp()
        total = torch.zeros_like(e[..., :1])
        for t in range(s.size(-1)):
            total = total + e[..., t : t + 1]
        return e / total


FAULTS = (
    inside("precision", Float32ThroughHalf, seen_by=("output", "gradients")),
    inside("precision", Float32ThroughTF32, seen_by=("output", "gradients")),
    inside("precision", Float64ThroughFloat32, seen_by=("output", "gradients")),
    inside("precision", Bfloat16ThroughHalf, seen_by=("output",)),
    inside("precision", EvalThroughBfloat16, seen_by=("output",)),
    inside("precision", ProbabilitiesInBfloat16, seen_by=("output", "gradients")),
    inside("precision", ProbabilitiesTowardZero, seen_by=("bias",)),
    inside("precision", MixTowardZero, seen_by=("bias",)),
    inside("precision", DenominatorStandsStill, seen_by=("output", "bias")),
)
