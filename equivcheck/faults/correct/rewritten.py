"""Right attentions that are written differently."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.faults.base import rights_of
from equivcheck.faults.correct.another_core import Rewritten, wide
from equivcheck.faults.correct.softmaxes import (
    BaseTwoSoftmax,
    Float64Inside,
    LogSoftmax,
    LogSumExp,
    QuotientAtTheEnd,
    SoftmaxInFloat32,
    SpelledOutSoftmax,
)

__all__ = ["RIGHTS"]


class FusedKernel(Rewritten):
    """torch's scaled_dot_product_attention with its causal flag."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rate = self.attn_drop.p if self.attn_drop.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, dropout_p=rate, is_causal=True)


class FusedKernelWithAMask(Rewritten):
    """torch's scaled_dot_product_attention with a mask of booleans."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rate = self.attn_drop.p if self.attn_drop.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, attn_mask=~self.hidden(q), dropout_p=rate)


class Einsum(Rewritten):
    """Both products spelled with einsum, in the dtype of the input like the original's."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        s = torch.einsum("bhid,bhjd->bhij", q, k) / math.sqrt(q.size(-1))
        p = self.attn_drop(F.softmax(s.masked_fill(self.hidden(q), -math.inf), dim=-1))
        return torch.einsum("bhij,bhjd->bhid", p, v)


class AdditiveMask(Rewritten):
    """One baddbmm adds the scaled product to a mask of zeros and minus infinities."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        B, nh, T, hs = q.shape
        q, k = wide(q).reshape(B * nh, T, hs), wide(k).reshape(B * nh, T, hs)
        s = torch.baddbmm(q.new_zeros(()), q, k.transpose(1, 2), alpha=1.0 / math.sqrt(hs))
        # a product that overflows under the mask must not meet minus infinity: inf - inf is NaN
        s = s.clamp(max=torch.finfo(s.dtype).max) + s.new_zeros(T, T).masked_fill(self.hidden(q), -math.inf)
        return self.mix(F.softmax(s, dim=-1).view(B, nh, T, T), v)


class ScaledQueries(Rewritten):
    """The scale goes to the queries before the product, in the dtype of the input."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        s = (q * q.size(-1) ** -0.5) @ k.mT
        return self.mix(F.softmax(s.masked_fill(self.hidden(q), -math.inf), dim=-1), v)


class ScaleSharedByBoth(Rewritten):
    """Queries and keys each get the square root of the scale, in the dtype of the input."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        root = q.size(-1) ** -0.25
        s = (q * root) @ (k * root).mT
        return self.mix(F.softmax(s.masked_fill(self.hidden(q), -math.inf), dim=-1), v)


class CachedMask(Rewritten):
    """A mask is cached for each length, and applied by torch.where."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.masks: dict[tuple[int, torch.device], Tensor] = {}

    def hidden(self, q: Tensor) -> Tensor:
        key = (q.size(-2), q.device)
        if key not in self.masks:
            with torch.inference_mode(False):  # a tensor from inference mode cannot be used in training
                self.masks[key] = super().hidden(q)
        return self.masks[key]

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        s = (q @ k.mT) * (1.0 / math.sqrt(q.size(-1)))
        return self.mix(F.softmax(torch.where(self.hidden(q), -math.inf, s), dim=-1), v)


class TransposedKeys(Rewritten):
    """The keys are laid out as (B, nh, hs, T) before they are multiplied, and the values as (B, nh, hs, T) too."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        s = (q @ k.mT.contiguous()) * (1.0 / math.sqrt(q.size(-1)))
        p = self.attn_drop(F.softmax(s.masked_fill(self.hidden(q), -math.inf), dim=-1))
        return (v.mT.contiguous() @ p.mT).mT  # type: ignore[no-any-return]  # nn.Module calls are Any


class KeysReversed(Rewritten):
    """The keys and values are taken from the last to the first."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.mix(F.softmax(self.scores(q, k).flip(-1), dim=-1), v.flip(-2))


class OneBatchOfMatrices(Rewritten):
    """Batch and heads become one dimension for bmm, in the dtype of the input."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        shape = q.shape
        q, k, v = (t.reshape(-1, *shape[2:]) for t in (q, k, v))
        s = torch.bmm(q, k.mT) * (1.0 / math.sqrt(shape[-1]))
        p = self.attn_drop(F.softmax(s.masked_fill(self.hidden(q), -math.inf), dim=-1))
        return torch.bmm(p, v).view(shape)


class HeadByHead(Rewritten):
    """A loop over the heads."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        heads = zip(*(torch.split(t, 1, dim=1) for t in (q, k, v)), strict=True)
        return torch.cat([self.mix(F.softmax(self.scores(q, k), dim=-1), v) for q, k, v in heads], dim=1)


class SampleBySample(Rewritten):
    """A loop over the batch."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        samples = zip(*(torch.split(t, 1) for t in (q, k, v)), strict=True)
        return torch.cat([self.mix(F.softmax(self.scores(q, k), dim=-1), v) for q, k, v in samples])


RIGHTS = rights_of(
    FusedKernel,
    FusedKernelWithAMask,
    Einsum,
    AdditiveMask,
    ScaledQueries,
    ScaleSharedByBoth,
    SoftmaxInFloat32,
    SpelledOutSoftmax,
    BaseTwoSoftmax,
    QuotientAtTheEnd,
    LogSumExp,
    LogSoftmax,
    Float64Inside,
    CachedMask,
    TransposedKeys,
    KeysReversed,
    OneBatchOfMatrices,
    HeadByHead,
    SampleBySample,
)
