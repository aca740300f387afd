"""The base class of right attentions that are written differently."""

import math

import torch
from torch import Tensor

from equivcheck.attention import CausalSelfAttention

__all__ = ["Rewritten", "wide"]


def wide(t: Tensor) -> Tensor:
    """`t` in float32, or in float64 if it is float64."""
    return t.to(torch.promote_types(t.dtype, torch.float32))


class Rewritten(CausalSelfAttention):
    """The original with another core: `attend` maps q, k, v, each (B, nh, T, hs), to the mixed values."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._heads(x)
        if self.mask.size(-1) < x.size(1):
            raise RuntimeError(f"sequence of length T={x.size(1)} is longer than block_size={self.mask.size(-1)}")
        # without tokens there is no maximum to subtract
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
