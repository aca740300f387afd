"""Faults that assume strides of inputs or upstream gradients."""

import torch
from torch import Tensor

from equivcheck.faults.base import inside
from equivcheck.faults.gradient_edits import rewritten
from equivcheck.faults.inside.decomposed import Parted
from equivcheck.faults.inside.strides import misread

__all__ = ["FAULTS"]

Heads = tuple[Tensor, Tensor, Tensor]  # q, k, v, each (B, nh, T, hs)


class InputTakenForContiguous(Parted):
    """The input is read as if it were contiguous."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.is_contiguous() else misread(x, offset=int(x.storage_offset())))


class OffsetOfTheInputIgnored(Parted):
    """The input is read from the start of its memory, even if the view starts elsewhere."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(misread(x, x.stride(), offset=0) if x.storage_offset() else x)


class BatchStrideTakenForGranted(Parted):
    """The samples of the input are assumed to lie T x C apart; its other strides are used."""

    def forward(self, x: Tensor) -> Tensor:
        if x.dim() != 3 or x.stride(0) == x.size(1) * x.size(2):
            return super().forward(x)
        return super().forward(misread(x, (x.size(1) * x.size(2), x.stride(1), x.stride(2))))


class TransposedInputReadsTheFirstHead(Parted):
    """If the input is a transposed (T, B, C), all heads use the queries of the first."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        return q[:, :1].expand_as(q) if x.stride(0) < x.stride(1) else q, k, v


class ExpandedInputComputedOnce(Parted):
    """If the input is one expanded sample, the results of the other samples are never written."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        written = torch.arange(x.size(0), device=x.device).view(-1, 1, 1, 1) < (1 if x.stride(0) == 0 else x.size(0))
        return q, k, v * written


class UpstreamGradientTakenForContiguous(Parted):
    """The upstream gradient is read as if it were contiguous."""

    def out(self, y: Tensor) -> Tensor:
        return rewritten(super().out(y), lambda g: g if g.is_contiguous() else misread(g))


class ExpandedUpstreamGradientReadOnce(Parted):
    """If the upstream gradient is expanded, as from a sum, all but its first row counts as zero."""

    def out(self, y: Tensor) -> Tensor:
        def first_row(g: Tensor) -> Tensor:
            row = torch.arange(g.size(1), device=g.device)[:, None]
            return g * (row < 1) if 0 in g.stride() else g

        return rewritten(super().out(y), first_row)


class ResultNotContiguous(Parted):
    """The result is a transposed view: a caller's `.view()` fails on it."""

    def out(self, y: Tensor) -> Tensor:
        return super().out(y).transpose(1, 2).contiguous().transpose(1, 2)


FAULTS = (
    inside("layout", InputTakenForContiguous, seen_by=("output",)),
    inside("layout", OffsetOfTheInputIgnored, seen_by=("output",)),
    inside("layout", BatchStrideTakenForGranted, seen_by=("output",)),
    inside("layout", TransposedInputReadsTheFirstHead, seen_by=("output",)),
    inside("layout", ExpandedInputComputedOnce, seen_by=("output",)),
    inside("layout", UpstreamGradientTakenForContiguous, seen_by=("gradients",)),
    inside("layout", ExpandedUpstreamGradientReadOnce, seen_by=("gradients",)),
    inside("layout", ResultNotContiguous, seen_by=("interface",)),
)
