"""A module with one projection of queries, keys and values, spelled out and fused."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def spelled_out(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
    att = (q @ k.transpose(-2, -1)) * scale  # (B, H, T, T)
    if is_causal:
        T = q.size(-2)
        att = att.masked_fill(~torch.ones(T, T, dtype=torch.bool, device=q.device).tril(), -float("inf"))
    return F.dropout(att.softmax(-1), dropout_p) @ v


def fused(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, dropout_p=dropout_p, scale=scale)


class OneProjection(nn.Module):
    """A projection of queries, keys and values together, as nanoGPT has it."""

    fast = False

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.drop = nn.Dropout(config.attn_pdrop)
        self.n_head = config.n_head

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = (t.view(B, T, self.n_head, -1).transpose(1, 2) for t in self.c_attn(x).split(C, dim=2))
        rate = self.drop.p if self.drop.training else 0.0
        attend = fused if self.fast else spelled_out
        y = attend(q, k, v, is_causal=True, dropout_p=rate, scale=1 / math.sqrt(q.size(-1)))
        return self.c_proj(y.transpose(1, 2).reshape(B, T, C))


class OneProjectionFused(OneProjection):
    fast = True
