"""Faults that need a certain shape: a partial tile, a wide head, a single token, a full block, many samples."""

import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.faults.base import inside
from equivcheck.faults.inside.decomposed import Parted

__all__ = ["FAULTS"]

Heads = tuple[Tensor, Tensor, Tensor]  # q, k, v, each (B, nh, T, hs)


class TailTileCountsZeros(Parted):
    """The last tile of 32 keys is padded with zeros that count: wrong where T is no multiple of 32."""

    def probabilities(self, s: Tensor) -> Tensor:
        T = s.size(-1)
        return F.softmax(F.pad(s, (0, -T % 32)), dim=-1)[..., :T]


class PartialTileOfKeysLost(Parted):
    """If T is greater than 32, the keys of a partial last tile are never read."""

    def visible(self, s: Tensor) -> Tensor:
        m = super().visible(s).clone()
        T = m.size(-1)
        if T > 32:
            m[..., T - T % 32 :] = 0
        return m


class PartialTileOfQueriesIsZero(Parted):
    """If T is greater than 64, the results of a partial last tile are never written."""

    def mix(self, p: Tensor, v: Tensor) -> Tensor:
        T = v.size(2)
        rows = torch.arange(T, device=v.device)[:, None]  # (T, 1)
        return super().mix(p, v).masked_fill((rows >= T - T % 64) & (T > 64), 0.0)


class LastKeyLostAtMultiplesOf64(Parted):
    """If T is a multiple of 64, the last key is dropped."""

    def visible(self, s: Tensor) -> Tensor:
        m = super().visible(s).clone()
        if m.size(-1) % 64 == 0:
            m[..., -1:] = 0
        return m


class FirstKeyLostAtPowersOfTwo(Parted):
    """If T is a power of two, only the first token sees the first key."""

    def visible(self, s: Tensor) -> Tensor:
        m = super().visible(s).clone()
        if m.size(-1).bit_count() == 1:
            m[..., 1:, :1] = 0
        return m


class KeysPast256Lost(Parted):
    """Keys from the 257th on are never read."""

    def visible(self, s: Tensor) -> Tensor:
        m = super().visible(s).clone()
        m[..., 256:] = 0
        return m


class FullBlockLosesItsLastToken(Parted):
    """If T is `block_size`, the last row is never written."""

    def mix(self, p: Tensor, v: Tensor) -> Tensor:
        y = super().mix(p, v)
        return F.pad(y[:, :, :-1], (0, 0, 0, 1)) if y.size(2) == self.mask.size(-1) else y


class SingleTokenIsZero(Parted):
    """If T is 1, the result is zero before the projection."""

    def mix(self, p: Tensor, v: Tensor) -> Tensor:
        return super().mix(p, v) * (v.size(2) != 1)


class HeadOfOneIsZero(Parted):
    """If D is 1, the result is zero before the projection."""

    def mix(self, p: Tensor, v: Tensor) -> Tensor:
        return super().mix(p, v) * (v.size(-1) != 1)


class OddHeadLosesADimension(Parted):
    """If D is odd, the last dimension of queries and keys is left out of their product."""

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        D = q.size(-1)
        even = torch.arange(D, device=q.device) < D - D % 2
        return super().scores(q * even, k)


class DimensionsPast64Lost(Parted):
    """If D is greater than 64, only the first 64 dimensions are read, and the rest of the result is zero."""

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return (q[..., :64] @ k[..., :64].transpose(-2, -1)) * self.scale(q)

    def mix(self, p: Tensor, v: Tensor) -> Tensor:
        D = v.size(-1)
        return F.pad(p @ v[..., :64], (0, max(D - 64, 0)))


class OtherSamplesAreZero(Parted):
    """Below T = 16 only the first sample of the batch is computed."""

    def mix(self, p: Tensor, v: Tensor) -> Tensor:
        B, _, T, _ = v.shape
        computed = torch.arange(B, device=v.device).view(B, 1, 1, 1) < (B if T >= 16 else 1)
        return super().mix(p, v) * computed


class SlicesPast16AreZero(Parted):
    """Only 16 of the B x H slices are computed, as with the limits of a grid."""

    def mix(self, p: Tensor, v: Tensor) -> Tensor:
        B, nh, _, _ = v.shape
        return super().mix(p, v) * (torch.arange(B * nh, device=v.device).view(B, nh, 1, 1) < 16)


class ThirdSampleReadsTheSecond(Parted):
    """From the third sample on keys and values are those of the second."""

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        sample = torch.arange(x.size(0), device=x.device).clamp(max=1)
        return q, k[sample], v[sample]


FAULTS = (
    inside("shape", TailTileCountsZeros, seen_by=("output", "gradients")),
    inside("shape", PartialTileOfKeysLost, seen_by=("output", "gradients")),
    inside("shape", PartialTileOfQueriesIsZero, seen_by=("output", "gradients")),
    inside("shape", LastKeyLostAtMultiplesOf64, seen_by=("output", "gradients")),
    inside("shape", FirstKeyLostAtPowersOfTwo, seen_by=("output", "gradients")),
    inside("shape", KeysPast256Lost, seen_by=("output", "gradients")),
    inside("shape", FullBlockLosesItsLastToken, seen_by=("output", "gradients")),
    inside("shape", SingleTokenIsZero, seen_by=("output", "gradients")),
    inside("shape", HeadOfOneIsZero, seen_by=("output", "gradients")),
    inside("shape", OddHeadLosesADimension, seen_by=("output", "gradients")),
    inside("shape", DimensionsPast64Lost, seen_by=("output", "gradients")),
    inside("shape", OtherSamplesAreZero, seen_by=("output",)),
    inside("shape", SlicesPast16AreZero, seen_by=("output",)),
    inside("shape", ThirdSampleReadsTheSecond, seen_by=("output",)),
)
