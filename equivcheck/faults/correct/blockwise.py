"""Right attentions that never store a whole row, or have a hand-written backward pass."""

import math
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from equivcheck.faults.base import rights_of
from equivcheck.faults.correct.another_core import Rewritten, wide

__all__ = ["RIGHTS"]


class QueriesByBlocks(Rewritten):
    """A loop over blocks of 32 queries, each with the keys that it sees."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        T, hidden, blocks = q.size(-2), self.hidden(q), []
        for start in range(0, T, 32):
            stop = min(start + 32, T)
            s = (wide(q[..., start:stop, :]) @ wide(k[..., :stop, :]).mT) / math.sqrt(q.size(-1))
            s = s.masked_fill(hidden[start:stop, :stop], -math.inf)  # (B, nh, 32, stop)
            blocks.append(self.mix(F.softmax(s, dim=-1), v[..., :stop, :]))
        return torch.cat(blocks, dim=-2)


class HalvesMergedBySums(Rewritten):
    """Late queries attend to two halves of the keys, whose results are weighted by their log-sum-exps."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        T = q.size(-2)
        half = (T + 1) // 2
        s = self.scores(q, k)
        upper = self.mix(F.softmax(s[..., :half, :half], dim=-1), v[..., :half, :])
        if half == T:
            return upper
        parts = torch.split(s[..., half:, :], [half, T - half], dim=-1)
        sums = [part.logsumexp(-1, keepdim=True) for part in parts]
        total = torch.logaddexp(*sums)
        lower = torch.zeros_like(wide(v[..., half:, :]))
        for part, sum_, values in zip(parts, sums, torch.split(v, [half, T - half], dim=-2), strict=True):
            lower = lower + wide(self.mix(F.softmax(part, dim=-1), values)) * (sum_ - total).exp()
        return torch.cat((upper, lower.to(v.dtype)), dim=-2)


class OnlineSoftmaxOf32(Rewritten):
    """An online softmax over blocks of 32 keys, accumulated in float32, or in float64 for inputs of float64."""

    block: ClassVar[int] = 32

    def stored(self, y: Tensor, dtype: torch.dtype) -> Tensor:
        """The accumulator between two blocks."""
        return y

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        T, hidden = q.size(-2), self.hidden(q)
        scaled = wide(q) * (1.0 / math.sqrt(q.size(-1)))
        top = torch.full_like(scaled[..., :1], -math.inf)  # (B, nh, T, 1)
        total, y = torch.zeros_like(top), torch.zeros_like(scaled)  # (B, nh, T, 1), (B, nh, T, hs)
        for start in range(0, T, self.block):
            keys = slice(start, start + self.block)
            s = (scaled @ wide(k[..., keys, :]).mT).masked_fill(hidden[:, keys], -math.inf)  # (B, nh, T, block)
            higher = torch.maximum(top, s.detach().amax(-1, keepdim=True))
            e = (s - higher).exp()
            before = total * (top - higher).exp()
            total = before + e.sum(-1, keepdim=True)
            # divided at once, so that values near the limits of the dtype do not overflow on the way
            y = y * (before / total) + self.attn_drop(e / total) @ wide(v[..., keys, :])
            y, top = wide(self.stored(y, v.dtype)), higher
        return y.to(v.dtype)


class OnlineSoftmaxOf16(OnlineSoftmaxOf32):
    """An online softmax over blocks of 16 keys."""

    block = 16


class OnlineSoftmaxOf64(OnlineSoftmaxOf32):
    """An online softmax over blocks of 64 keys."""

    block = 64


class OnlineSoftmaxStoredNarrow(OnlineSoftmaxOf32):
    """An online softmax over blocks of 64 keys whose accumulator has the dtype of the input between blocks."""

    block = 64

    def stored(self, y: Tensor, dtype: torch.dtype) -> Tensor:
        return y.to(dtype)


class _Recurrence(torch.autograd.Function):
    """Flash attention's equations with its roundings: P and dS in the input's dtype before products, O as returned."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, hidden: Tensor, keep_mask: Tensor) -> Tensor:
        s = (wide(q) @ wide(k).mT) / math.sqrt(q.size(-1))
        s = s.masked_fill(hidden, -math.inf)
        lse = s.logsumexp(-1, keepdim=True)
        p = (s - lse).exp()
        o = (wide((p * keep_mask).to(v.dtype)) @ wide(v)).to(v.dtype)
        ctx.save_for_backward(q, k, v, hidden, keep_mask, lse, o)
        return o

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, do: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, hidden, keep_mask, lse, o = ctx.saved_tensors
        scale = 1.0 / math.sqrt(q.size(-1))
        s = ((wide(q) @ wide(k).mT) * scale).masked_fill(hidden, -math.inf)
        p = (s - lse).exp()
        dv = wide((p * keep_mask).to(v.dtype)).mT @ wide(do)
        dp = (wide(do) @ wide(v).mT) * keep_mask
        delta = (wide(do) * wide(o)).sum(-1, keepdim=True)
        ds = wide((p * (dp - delta)).to(q.dtype))
        dq, dk = (ds @ wide(k)) * scale, (ds.mT @ wide(q)) * scale
        return dq.to(q.dtype), dk.to(k.dtype), dv.to(v.dtype), None, None


class FlashRecurrence(Rewritten):
    """The textbook flash attention and its backward pass: P from the log-sum-exp, rowsum(dO * O) from the rounded O."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        B, nh, T, _ = q.shape
        keep_mask = self.attn_drop(torch.ones(B, nh, T, T, dtype=wide(q).dtype, device=q.device))
        return _Recurrence.apply(q, k, v, self.hidden(q), keep_mask)  # type: ignore[no-any-return, no-untyped-call]


class OwnDropoutMask(Rewritten):
    """The dropout mask comes from uniform numbers, and therefore differs from the original's under the same seed."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        p = F.softmax(self.scores(q, k), dim=-1).to(v.dtype)
        rate = self.attn_drop.p
        if self.attn_drop.training and rate > 0.0:
            keep_mask = torch.rand(p.shape, device=p.device) >= rate
            p = p * keep_mask / (1.0 - rate) if rate < 1.0 else p * 0.0
        return p @ v


RIGHTS = rights_of(
    QueriesByBlocks,
    HalvesMergedBySums,
    OnlineSoftmaxOf16,
    OnlineSoftmaxOf32,
    OnlineSoftmaxOf64,
    OnlineSoftmaxStoredNarrow,
    FlashRecurrence,
    OwnDropoutMask,
)
