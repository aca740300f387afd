"""Right attentions written differently: what no check may call different."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.attention import CausalSelfAttention
from equivcheck.faults.base import rights_of

__all__ = ["RIGHTS", "Rewritten", "wide"]


def wide(t: Tensor) -> Tensor:
    """`t` in float32, or in float64 where that is what it came in."""
    return t.to(torch.promote_types(t.dtype, torch.float32))


class Rewritten(CausalSelfAttention):
    """The original around another core: `attend` maps q, k, v, each (B, nh, T, hs), to the mixed values."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._heads(x)
        if self.mask.size(-1) < x.size(1):
            raise RuntimeError(f"sequence of length T={x.size(1)} is longer than block_size={self.mask.size(-1)}")
        # without a token there is no maximum to subtract, and nothing to attend to
        return self._merge(self.attend(q, k, v) if q.numel() else v)

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        raise NotImplementedError

    def hidden(self, q: Tensor) -> Tensor:
        T = q.size(-2)
        return torch.ones(T, T, dtype=torch.bool, device=q.device).triu(1)  # (T, T)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        s = (wide(q) @ wide(k).transpose(-2, -1)) / math.sqrt(q.size(-1))
        return s.masked_fill(self.hidden(q), -math.inf)  # (B, nh, T, T), float32 at least

    def mix(self, p: Tensor, v: Tensor) -> Tensor:
        return self.attn_drop(p.to(v.dtype)) @ v  # type: ignore[no-any-return]  # nn.Module calls are Any


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


class SoftmaxInFloat32(Rewritten):
    """The scores stay in the dtype of the input and the softmax runs in float32, or in float64 where that came in."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        s = (q @ k.mT) * (1.0 / math.sqrt(q.size(-1)))
        return self.mix(F.softmax(wide(s.masked_fill(self.hidden(q), -math.inf)), dim=-1), v)


class SpelledOutSoftmax(Rewritten):
    """The softmax by hand: maximum, difference, exponential, sum, quotient."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        s = self.scores(q, k)
        e = (s - s.detach().amax(-1, keepdim=True)).exp()
        return self.mix(e / e.sum(-1, keepdim=True), v)


class BaseTwoSoftmax(Rewritten):
    """The softmax by powers of two."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        s = self.scores(q, k)
        e = ((s - s.detach().amax(-1, keepdim=True)) * math.log2(math.e)).exp2()
        return self.mix(e / e.sum(-1, keepdim=True), v)


class QuotientAtTheEnd(Rewritten):
    """The exponentials mix the values first, and the result is divided by their sum."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        s = self.scores(q, k)
        e = (s - s.detach().amax(-1, keepdim=True)).exp()
        total = e.sum(-1, keepdim=True)
        # by a power of two, so that nothing near the limits of the dtype overflows before the division
        room = 2.0 ** -math.ceil(math.log2(s.size(-1)))
        return ((self.attn_drop(e * room) @ wide(v)) / (total * room)).to(v.dtype)  # type: ignore[no-any-return]


class LogSumExp(Rewritten):
    """The probabilities are exp(S - logsumexp(S))."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        s = self.scores(q, k)
        return self.mix((s - s.logsumexp(-1, keepdim=True)).exp(), v)


class LogSoftmax(Rewritten):
    """The probabilities are the exponentials of a log_softmax."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.mix(F.log_softmax(self.scores(q, k), dim=-1).exp(), v)


class Float64Inside(Rewritten):
    """Everything between the projections in float64."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return self.mix(F.softmax(self.scores(q.double(), k.double()), dim=-1), v.double()).to(v.dtype)


class CachedMask(Rewritten):
    """A bias of zeros and minus infinities is kept for each length, and chosen from by torch.where."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.kept: dict[tuple[int, torch.device], Tensor] = {}

    def hidden(self, q: Tensor) -> Tensor:
        key = (q.size(-2), q.device)
        if key not in self.kept:
            with torch.inference_mode(False):  # made in inference mode, it could never be trained with
                self.kept[key] = super().hidden(q)
        return self.kept[key]

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
