"""Attentions that are not minGPT's, with one reading built in by a number: the candidates of `diagnosis.py`."""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BLOCK = 16  # keys that are looked at together


@dataclass(frozen=True)
class Built:
    """What is built in: the defaults are the original's."""

    offset: int = 0
    window: int = 0
    chunk: int = 0
    prefix: int = 0
    causal: bool = True
    lost_first: int = 0
    scale: float = 1.0
    cap: float = 0.0
    heads: str = "interleaved"
    one_added: bool = False
    detached: str = ""
    halved: str = ""
    eval_dropout: bool = False
    rescaled: bool = False
    odd_channels: float = 1.0
    sample: float = 1.0
    swapped_halves: bool = False

    def seen(self, T: int, S: int, device: torch.device) -> Tensor:
        """The keys that each query sees: (T, S)."""
        i, j = torch.arange(T, device=device)[:, None] + (S - T), torch.arange(S, device=device)[None]
        seen = j <= i + self.offset if self.causal else torch.ones(T, S, dtype=torch.bool, device=device)
        if self.window:
            seen = seen & (i - j < self.window)
        if self.chunk:
            seen = seen & (i // self.chunk == j // self.chunk)
        if self.prefix:
            seen = seen | (j < self.prefix)
        if self.lost_first:
            seen = seen & ((j >= self.lost_first) | (j == i))
        return seen

    def gradient(self, name: str, x: Tensor) -> Tensor:
        """The tensor, with its gradient lost or halved if that is built in."""
        if self.detached == name:
            return x.detach()
        return x.detach() + (x - x.detach()) * 0.5 if self.halved == name else x


def spread(x: Tensor, heads: int, how: str) -> Tensor:
    """Grouped heads of keys or values for all query heads: (B, heads, S, D)."""
    count = x.size(1)
    at = torch.arange(heads, device=x.device)
    read = {"interleaved": at // (heads // count), "tiled": at % count, "first": at * 0}[how]
    return x[:, read]


def blockwise(q: Tensor, k: Tensor, v: Tensor, built: Built, rate: float = 0.0) -> Tensor:
    """Attention by blocks of keys with a running maximum: (B, H, T, Dv)."""
    k, v = (spread(x, q.size(1), built.heads) for x in (k, v))
    q, k, v = (built.gradient(name, x) for name, x in zip("qkv", (q, k, v), strict=True))
    T, S = q.size(-2), k.size(-2)
    seen = built.seen(T, S, q.device)
    factor = built.scale / math.sqrt(q.size(-1))
    top = q.new_full((*q.shape[:-1], 1), -math.inf)
    total, y = torch.zeros_like(top), q.new_zeros((*q.shape[:-1], v.size(-1)))
    for start in range(0, S, BLOCK):
        part = slice(start, start + BLOCK)
        scores = q @ k[..., part, :].mT * factor  # (B, H, T, block)
        if built.cap:
            scores = built.cap * torch.tanh(scores / built.cap)
        scores = scores.masked_fill(~seen[:, part], -math.inf)
        higher = torch.maximum(top, scores.amax(-1, keepdim=True)).detach()
        safe = higher.masked_fill(higher == -math.inf, 0.0)
        p, kept = (scores - safe).exp(), (top - safe).exp()
        total = total * kept + p.sum(-1, keepdim=True)
        if rate:
            p = F.dropout(p, rate)
        y, top = y * kept + p @ v[..., part, :], higher
    if built.one_added:
        total = total + (-top).exp()
    return y / total * built.odd_channels


def function(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, built: Built, enable_gqa: bool = False) -> Tensor:
    """A function of q, k, v, blockwise."""
    return blockwise(q, k, v, built if is_causal else replace(built, causal=False))


class NanoGPT(nn.Module):
    """One projection for q, k, v, as nanoGPT has it."""

    kv_share = 1
    rotary = False

    def __init__(self, config: Any, built: Built | None = None) -> None:
        super().__init__()
        self.built, self.n_head, self.p = built, config.n_head, config.attn_pdrop
        size = config.n_embd // config.n_head
        self.kv_heads = config.n_head // self.kv_share if config.n_head % self.kv_share == 0 else config.n_head
        self.c_attn = nn.Linear(config.n_embd, (config.n_head + 2 * self.kv_heads) * size)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.attn_dropout, self.resid_dropout = nn.Dropout(config.attn_pdrop), nn.Dropout(config.resid_pdrop)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """q (B, H, T, D), k and v (B, Hkv, T, D)."""
        B, T, C = x.shape
        y = self.c_attn(x).view(B, T, self.n_head + 2 * self.kv_heads, C // self.n_head).transpose(1, 2)
        q, k, v = y.split((self.n_head, self.kv_heads, self.kv_heads), dim=1)
        return (turned(q), turned(k), v) if self.rotary else (q, k, v)

    def plain(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The original's attention."""
        k, v = (spread(x, q.size(1), "interleaved") for x in (k, v))
        scores = q @ k.mT / math.sqrt(q.size(-1))
        future = ~torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril()
        return self.attn_dropout(F.softmax(scores.masked_fill(future, -math.inf), dim=-1)) @ v

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        q, k, v = self.heads(x)
        built = self.built
        if built is None:
            y = self.plain(q, k, v)
        else:
            dropping = built.eval_dropout or self.training
            y = blockwise(q, k, v, built, self.p if dropping else 0.0)
            if built.rescaled and not self.training:
                y = y / (1 - self.p)
            if built.sample != 1 and y.size(0) > 2:
                y = torch.cat((y[:-1], y[-1:] * built.sample))
            if built.swapped_halves:
                half = y.size(-1) // 2
                y = torch.cat((y[..., half:], y[..., :half]), dim=-1)
        y = y.transpose(1, 2).reshape(x.shape)
        return self.resid_dropout(self.c_proj(y))


class Grouped(NanoGPT):
    """Two query heads read one key head."""

    kv_share = 2


class Rotary(NanoGPT):
    """Rotary positions, where the size of a head is even."""

    rotary = True


def turned(x: Tensor) -> Tensor:
    """Rotary positions on the even part of the channels: (B, H, T, D)."""
    half = x.size(-1) // 2
    turns = torch.arange(half, device=x.device, dtype=torch.float64) / max(half, 1)
    angle = torch.arange(x.size(-2), device=x.device, dtype=torch.float64)[:, None] * 10000.0**-turns
    cos, sin = angle.cos().to(x), angle.sin().to(x)
    a, b, rest = x.split((half, half, x.size(-1) - 2 * half), dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos, rest), dim=-1)
