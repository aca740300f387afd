"""Four candidates, each wrong at one level, for docs/verdict.md; the original is equivcheck.attention:CausalSelfAttention."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.attention import AttentionConfig, CausalSelfAttention


class OffByOne(CausalSelfAttention):
    """Wrong at values: past 16 positions a query sees the key after it, too."""

    def _probabilities(self, q: Tensor, k: Tensor) -> Tensor:
        T = q.size(-2)
        s = q @ k.transpose(-2, -1) * k.size(-1) ** -0.5  # (B, nh, T, T)
        visible = torch.ones(T, T, dtype=torch.bool, device=q.device).tril(1 if T > 16 else 0)
        visible &= self.mask[0, 0, :T, :T].bool() if T <= 16 else True
        return self.attn_drop(s.masked_fill(~visible, -torch.inf).softmax(-1))


class NotRescaled(CausalSelfAttention):
    """Wrong at training: probabilities that are kept are not divided by 1 - p."""

    def _probabilities(self, q: Tensor, k: Tensor) -> Tensor:
        att = super()._probabilities(q, k)  # (B, nh, T, T)
        return att * (1 - self.attn_drop.p) if self.attn_drop.training and self.attn_drop.p < 1 else att


class WideUnderAutocast(CausalSelfAttention):
    """Wrong at transforms: under autocast the result stays in float32."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return super().forward(x.to(self.proj.weight.dtype))


class Renamed(nn.Module):
    """Wrong at drop-in: the same numbers from parameters of the same names, without `n_head`, hooks or adapters."""

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        original = CausalSelfAttention(config)
        self.key, self.query, self.value = original.key, original.query, original.value
        self.attn_drop, self.resid_drop, self.proj = original.attn_drop, original.resid_drop, original.proj
        self.register_buffer("mask", original.mask)
        self.heads = config.n_head

    def forward(self, x: Tensor) -> Tensor:
        weight = torch.cat((self.query.weight, self.key.weight, self.value.weight))
        bias = torch.cat((self.query.bias, self.key.bias, self.value.bias))
        parts = F.linear(x, weight, bias).chunk(3, -1)  # (B, T, C) each
        q, k, v = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)  # (B, nh, T, hs)
        T = x.size(1)
        s = q @ k.transpose(-2, -1) * k.size(-1) ** -0.5  # (B, nh, T, T)
        s = s.masked_fill(self.mask[:, :, :T, :T] == 0, -torch.inf)
        return self.resid_drop(self.proj((self.attn_drop(s.softmax(-1)) @ v).transpose(1, 2).flatten(2)))
