"""The original divided into parts, so that a fault overrides one part."""

import math

import torch.nn.functional as F
from torch import Tensor

from equivcheck.attention import CausalSelfAttention

__all__ = ["Parted"]


class Parted(CausalSelfAttention):
    """The original with its forward pass divided into parts; without an override it equals the original bit for bit."""

    fill = -math.inf  # the score of a hidden key

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        self.attention_weights = self.weights(q, k)
        return self.out(self.mix(self.attention_weights, v))

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._heads(x)  # each (B, nh, T, hs)

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        return self.dropped(self.probabilities(self.masked(self.scores(q, k))))  # (B, nh, T, T)

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return (q @ k.transpose(-2, -1)) * self.scale(q)  # (B, nh, T, T)

    def scale(self, q: Tensor) -> float:
        return 1.0 / math.sqrt(q.size(-1))

    def visible(self, s: Tensor) -> Tensor:
        # a slice of the buffer, and therefore too small for a sequence past block_size, which masked() then refuses
        return self.mask[:, :, : s.size(-2), : s.size(-1)]  # (1, 1, T, T)

    def masked(self, s: Tensor) -> Tensor:
        return s.masked_fill(self.visible(s) == 0, self.fill)

    def probabilities(self, s: Tensor) -> Tensor:
        return F.softmax(s, dim=-1)

    def dropped(self, p: Tensor) -> Tensor:
        return self.attn_drop(p)  # type: ignore[no-any-return]  # nn.Module calls are Any

    def mix(self, p: Tensor, v: Tensor) -> Tensor:
        return p @ v  # (B, nh, T, hs)

    def merged(self, y: Tensor) -> Tensor:
        B, nh, T, hs = y.shape
        return y.transpose(1, 2).contiguous().view(B, T, nh * hs)  # (B, T, C)

    def out(self, y: Tensor) -> Tensor:
        return self.resid_drop(self.proj(self.merged(y)))  # type: ignore[no-any-return]  # nn.Module calls are Any
