"""Faults of the heads: split, merged, paired or counted wrongly."""

import torch
from torch import Tensor

from equivcheck.faults.base import inside
from equivcheck.faults.inside.decomposed import Parted

__all__ = ["FAULTS"]

Heads = tuple[Tensor, Tensor, Tensor]  # q, k, v, each (B, nh, T, hs)


class HeadsMergedWithoutTranspose(Parted):
    """(B, H, T, D) is viewed as (B, T, C) without moving the heads back: wrong with more than one head."""

    def merged(self, y: Tensor) -> Tensor:
        B, nh, T, hs = y.shape
        return y.reshape(B, T, nh * hs)


class HeadsSplitWithoutTranspose(Parted):
    """(B, T, C) is viewed as (B, H, T, D) without moving the heads forward: wrong with more than one head."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = (t.transpose(1, 2).reshape(t.shape) for t in super().heads(x))
        return q, k, v


class HeadsInterleaved(Parted):
    """Channel c belongs to head c mod H instead of c div D, for queries, keys, values and the result."""

    def heads(self, x: Tensor) -> Heads:
        B, T, C = x.shape
        shape = (B, T, C // self.n_head, self.n_head)
        q, k, v = (t.transpose(1, 2).reshape(shape).permute(0, 3, 1, 2) for t in super().heads(x))
        return q, k, v

    def merged(self, y: Tensor) -> Tensor:
        return y.permute(0, 2, 3, 1).flatten(2)  # (B, T, C)


class AttentionOverHeads(Parted):
    """(B, T, H, D) goes to a kernel that takes (B, H, T, D): the heads of one token attend to each other."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = (t.transpose(1, 2) for t in super().heads(x))
        return q, k, v

    def merged(self, y: Tensor) -> Tensor:
        return super().merged(y.transpose(1, 2))


class QueryAndKeySwapped(Parted):
    """Queries are taken for keys and keys for queries."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        return k, q, v


class KeyAndValueSwapped(Parted):
    """Keys are taken for values and values for keys."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        return q, v, k


class BatchAndHeadSwapped(Parted):
    """The result is merged as if heads came before samples: wrong with more than one of each."""

    def merged(self, y: Tensor) -> Tensor:
        B, nh, T, hs = y.shape
        return super().merged(y.reshape(nh, B, T, hs).transpose(0, 1))


class KeyHeadsRolled(Parted):
    """Each head uses the keys of the head before it."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        return q, k.roll(1, dims=1), v


class KeyHeadsShared(Parted):
    """Two heads share the keys of the first of them, as in grouped-query attention."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        head = torch.arange(k.size(1), device=k.device)
        return q, k[:, head - head % 2], v


class EighthKeyOfTheNextHead(Parted):
    """With 2 to 7 heads every eighth key comes from the next head."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        eighth = torch.arange(k.size(2), device=k.device)[:, None] % 8 == 7  # (T, 1)
        return q, torch.where(eighth, k.roll(-1, dims=1), k) if k.size(1) < 8 else k, v


class HeadsPast4WrapAround(Parted):
    """The heads from the fifth on use the values of the first ones."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        return q, k, v[:, torch.arange(v.size(1), device=v.device) % 4]


class HeadCountIgnored(Parted):
    """There is one head as wide as the embedding, and `n_head` has no effect."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = (t.transpose(1, 2).flatten(2)[:, None] for t in super().heads(x))  # (B, 1, T, C)
        return q, k, v


FAULTS = (
    inside("heads", HeadsMergedWithoutTranspose, seen_by=("output", "causality", "gradients", "logits")),
    inside("heads", HeadsSplitWithoutTranspose, seen_by=("output", "causality")),
    inside("heads", HeadsInterleaved, seen_by=("output", "gradients")),
    inside("heads", AttentionOverHeads, seen_by=("output", "gradients")),
    inside("heads", QueryAndKeySwapped, seen_by=("output", "gradients")),
    inside("heads", KeyAndValueSwapped, seen_by=("output", "gradients")),
    inside("heads", BatchAndHeadSwapped, seen_by=("output",)),
    inside("heads", KeyHeadsRolled, seen_by=("output", "gradients")),
    inside("heads", KeyHeadsShared, seen_by=("output", "gradients")),
    inside("heads", EighthKeyOfTheNextHead, seen_by=("output", "gradients")),
    inside("heads", HeadsPast4WrapAround, seen_by=("output", "gradients")),
    inside("heads", HeadCountIgnored, seen_by=("output", "gradients", "interface")),
)
