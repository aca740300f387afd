"""Attentions as modules of a minGPT-like config: originals, then candidates that keep their originals' names."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

WINDOW = 6
CAP = 3.0


def _later(t: int, device: torch.device) -> Tensor:
    return torch.ones(t, t, dtype=torch.bool, device=device).triu(1)


class Nano(nn.Module):
    """One fused projection, two dropouts and the triangle as a buffer named `bias`."""

    def __init__(self, config):
        super().__init__()
        if config.n_embd % config.n_head:
            raise ValueError("n_embd must be a multiple of n_head")
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=getattr(config, "bias", True))
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=getattr(config, "bias", True))
        self.attn_dropout = nn.Dropout(config.attn_pdrop)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)
        self.n_head, self.n_embd, self.dropout = config.n_head, config.n_embd, config.attn_pdrop
        triangle = torch.ones(config.block_size, config.block_size).tril()
        self.register_buffer("bias", triangle[None, None])

    def core(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        t = q.size(2)
        s = (q @ k.transpose(-2, -1)) / math.sqrt(k.size(-1))
        s = s.masked_fill(self.bias[:, :, :t, :t] == 0, -math.inf)
        return self.attn_dropout(s.softmax(-1)) @ v

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = (t.view(B, T, self.n_head, -1).transpose(1, 2) for t in self.c_attn(x).split(C, dim=2))
        y = self.core(q, k, v).transpose(1, 2).reshape(B, T, C)
        return self.resid_dropout(self.c_proj(y))


class Separate(nn.Module):
    """Three projections; `config.dropout` for both dropouts where it is there."""

    def __init__(self, config):
        super().__init__()
        C, p = config.n_embd, getattr(config, "dropout", None)
        self.query, self.key, self.value, self.proj = (nn.Linear(C, C) for _ in range(4))
        self.attn_drop = nn.Dropout(config.attn_pdrop if p is None else p)
        self.resid_drop = nn.Dropout(config.resid_pdrop if p is None else p)
        self.n_head = config.n_head

    def heads(self, t: Tensor) -> Tensor:
        return t.unflatten(-1, (self.n_head, -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(self.query(x)), self.heads(self.key(x)), self.heads(self.value(x))
        s = q @ k.mT * (1.0 / math.sqrt(q.size(-1)))
        s = s.masked_fill(_later(x.size(1), x.device), -math.inf)
        y = self.attn_drop(F.softmax(s, dim=-1)) @ v
        return self.resid_drop(self.proj(y.transpose(1, 2).flatten(2)))


class Norm(nn.Module):
    """RMSNorm in float32 (float64 stays), with a weight."""

    def __init__(self, size: int, eps: float = 1e-6):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(size)), eps

    def forward(self, x: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + self.eps)
        return wide.to(x.dtype) * self.weight.to(x.dtype)


class _Base(nn.Module):
    """Four projections without bias, causal; what differs is in `prepare`, `scores` and `hidden`."""

    def __init__(self, config):
        super().__init__()
        self.n_head, self.head_size = config.n_head, config.n_embd // config.n_head
        self.n_kv_head = config.n_head
        self.setup(config)
        C, narrow = config.n_embd, self.n_kv_head * self.head_size
        self.wq, self.wo = nn.Linear(C, C, bias=False), nn.Linear(C, C, bias=False)
        self.wk, self.wv = nn.Linear(C, narrow, bias=False), nn.Linear(C, narrow, bias=False)
        self.attn_drop, self.resid_drop = nn.Dropout(config.attn_pdrop), nn.Dropout(config.resid_pdrop)

    def setup(self, config):
        pass

    def prepare(self, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return q, k

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return q @ k.mT / math.sqrt(self.head_size)

    def hidden(self, t: int, device: torch.device) -> Tensor | None:
        return _later(t, device)

    def core(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        s, hidden = self.scores(q, k), self.hidden(q.size(2), q.device)
        s = s if hidden is None else s.masked_fill(hidden, -math.inf)
        return self.attn_drop(s.softmax(-1)) @ v

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (w(x).unflatten(-1, (-1, self.head_size)).transpose(1, 2) for w in (self.wq, self.wk, self.wv))
        y = self.core(*self.prepare(q, k), v)
        return self.resid_drop(self.wo(y.transpose(1, 2).flatten(2)))


class Normed(_Base):
    """Queries and keys are normed per head."""

    def setup(self, config):
        self.q_norm, self.k_norm = Norm(self.head_size), Norm(self.head_size)

    def prepare(self, q, k):
        return self.q_norm(q), self.k_norm(k)


def angles(t: int, half: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and sines of shape (t, half), never below float32."""
    wide = torch.promote_types(like.dtype, torch.float32)
    speed = 10000.0 ** (-torch.arange(half, dtype=wide, device=like.device) / half)
    turn = torch.outer(torch.arange(t, dtype=wide, device=like.device), speed)
    return turn.cos(), turn.sin()


class RotaryHalf(_Base):
    """Rotary positions; the two coordinates of a plane are half a head apart."""

    def setup(self, config):
        if self.head_size % 2:
            raise ValueError("rotary positions need heads of an even size")

    def rotate(self, x: Tensor) -> Tensor:
        cos, sin = angles(x.size(2), self.head_size // 2, x)
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, a * sin + b * cos), -1).to(x.dtype)

    def prepare(self, q, k):
        return self.rotate(q), self.rotate(k)


class RotaryInterleaved(RotaryHalf):
    """Rotary positions; the two coordinates of a plane are neighbours."""

    def rotate(self, x: Tensor) -> Tensor:
        cos, sin = angles(x.size(2), self.head_size // 2, x)
        a, b = x[..., 0::2], x[..., 1::2]
        return torch.stack((a * cos - b * sin, a * sin + b * cos), -1).flatten(-2).to(x.dtype)


class Grouped(_Base):
    """Half as many heads of keys and values, where the number of heads is even."""

    def setup(self, config):
        self.n_kv_head = config.n_head // 2 if config.n_head % 2 == 0 else config.n_head

    def core(self, q, k, v):
        k, v = (t.repeat_interleave(self.n_head // self.n_kv_head, dim=1) for t in (k, v))
        return super().core(q, k, v)


class Sliding(_Base):
    """Every token sees itself and the five before it."""

    def hidden(self, t, device):
        i = torch.arange(t, device=device)
        back = i[:, None] - i
        return (back < 0) | (back >= WINDOW)


class Encoder(_Base):
    """No mask: every token sees every other."""

    def hidden(self, t, device):
        return None


class Capped(_Base):
    """Scores pass through a soft cap before they are masked."""

    def scores(self, q, k):
        return CAP * torch.tanh(super().scores(q, k) / CAP)


def _finite(m: Tensor) -> Tensor:
    return m.masked_fill(m == -math.inf, 0.0)


def _tiled(q: Tensor, k: Tensor, v: Tensor, scale: float, cap: float | None = None, tile: int = 8) -> Tensor:
    """Causal attention with a running maximum; queries in tiles, and no tile of keys after them."""
    result, outs = q.dtype, []
    with torch.autocast(q.device.type, enabled=False):
        q, k, v = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (q, k, v))
        for start in range(0, q.size(2), tile):
            rows = q[:, :, start : start + tile]
            i = torch.arange(start, start + rows.size(2), device=q.device)[:, None]
            m = torch.full_like(rows[..., :1], -math.inf)
            total, out = torch.zeros_like(m), torch.zeros_like(m)
            for left in range(0, start + rows.size(2), tile):
                s = rows @ k[:, :, left : left + tile].mT * scale
                s = s if cap is None else cap * torch.tanh(s / cap)
                s = s.masked_fill(i < torch.arange(left, left + s.size(-1), device=q.device), -math.inf)
                new = torch.maximum(m, s.detach().amax(-1, keepdim=True))
                e, shrink = torch.exp(s - _finite(new)), torch.exp(m - _finite(new))
                total = total * shrink + e.sum(-1, keepdim=True)
                out, m = out * shrink + e @ v[:, :, left : left + tile], new
            outs.append(out / total)
        return torch.cat(outs, 2).to(result)


class NanoSdpa(Nano):
    """Right: torch's kernel, which drops in training only."""

    def core(self, q, k, v):
        p = self.dropout if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=p)


class NanoTiled(Nano):
    """Right: tiles with a running maximum while nothing is dropped, the original otherwise."""

    def core(self, q, k, v):
        if self.training and self.dropout:
            return super().core(q, k, v)
        return _tiled(q, k, v, q.size(-1) ** -0.5)


class NanoUpcast(Nano):
    """Right: scores, softmax and sum in float32 at least, rounded once."""

    def core(self, q, k, v):
        wide = torch.promote_types(q.dtype, torch.float32)
        with torch.autocast(q.device.type, enabled=False):
            s = torch.einsum("bhid,bhjd->bhij", q.to(wide) * q.size(-1) ** -0.5, k.to(wide))
            s = s.masked_fill(self.bias[..., : s.size(-2), : s.size(-1)].logical_not(), -math.inf)
            return (self.attn_dropout(s.softmax(-1)) @ v.to(wide)).to(v.dtype)


class NanoCheckpointed(Nano):
    """Right: in training the probabilities are computed again in backward."""

    def core(self, q, k, v):
        if self.training and torch.is_grad_enabled():
            return checkpoint(super().core, q, k, v, use_reentrant=False)
        return super().core(q, k, v)


class SeparateFused(Separate):
    """Right: one multiplication by the three weights, laid one under another."""

    def forward(self, x):
        parts = self.query, self.key, self.value
        weight, bias = torch.cat([m.weight for m in parts]), torch.cat([m.bias for m in parts])
        q, k, v = (self.heads(t) for t in F.linear(x, weight, bias).chunk(3, -1))
        p = self.attn_drop.p if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, dropout_p=p, is_causal=True)
        return self.resid_drop(self.proj(y.transpose(1, 2).flatten(2)))


class SeparateReordered(Separate):
    """Right: scaled keys, scores held as (keys, queries), softmax over the first of the two."""

    def forward(self, x):
        q, k, v = (self.heads(m(x)) for m in (self.query, self.key, self.value))
        s = (k * k.size(-1) ** -0.5) @ q.mT
        i = torch.arange(x.size(1), device=x.device)
        p = self.attn_drop(s.masked_fill(i[:, None] > i, -math.inf).softmax(-2))
        y = (v.mT @ p).permute(0, 3, 1, 2)
        return self.resid_drop(self.proj(y.flatten(2)))


class NormedSdpa(Normed):
    """Right: the norms stay modules, the rest is torch's kernel."""

    def core(self, q, k, v):
        return F.scaled_dot_product_attention(
            q, k, v, is_causal=True, dropout_p=self.attn_drop.p if self.training else 0.0
        )


class RotaryComplex(RotaryHalf):
    """Right: the planes of the rotation are complex numbers, turned by a multiplication."""

    def rotate(self, x):
        cos, sin = angles(x.size(2), self.head_size // 2, x)
        a, b = x.to(cos.dtype).chunk(2, -1)
        turned = torch.complex(a, b) * torch.complex(cos, sin)
        return torch.cat((turned.real, turned.imag), -1).to(x.dtype)


class RotaryLater(RotaryHalf):
    """Right: positions of queries and keys both begin at one; only their difference is seen."""

    def rotate(self, x):
        cos, sin = (t[1:] for t in angles(x.size(2) + 1, self.head_size // 2, x))
        a, b = x.chunk(2, -1)
        return torch.cat((a * cos - b * sin, a * sin + b * cos), -1).to(x.dtype)


class RotaryPermuted(RotaryInterleaved):
    """Right: even coordinates first and odd ones after, in queries and keys alike, then by halves."""

    def rotate(self, x):
        x = torch.cat((x[..., 0::2], x[..., 1::2]), -1)
        cos, sin = (torch.cat((t, t), -1) for t in angles(x.size(2), self.head_size // 2, x))
        a, b = x.chunk(2, -1)
        return (x * cos + torch.cat((-b, a), -1) * sin).to(x.dtype)


class GroupedSdpa(Grouped):
    """Right: torch's kernel shares the heads."""

    def core(self, q, k, v):
        return F.scaled_dot_product_attention(
            q, k, v, is_causal=True, enable_gqa=True, dropout_p=self.attn_drop.p if self.training else 0.0
        )


class GroupedView(Grouped):
    """Right: queries of one group are a dimension over which keys and values are broadcast."""

    def core(self, q, k, v):
        q = q.unflatten(1, (self.n_kv_head, -1))
        s = self.scores(q, k.unsqueeze(2)).masked_fill(self.hidden(q.size(3), q.device), -math.inf)
        return (self.attn_drop(s.softmax(-1)) @ v.unsqueeze(2)).flatten(1, 2)


class SlidingBanded(Sliding):
    """Right: every query gathers its six keys; those before the first are hidden."""

    def core(self, q, k, v):
        t, reach = q.size(2), WINDOW
        at = torch.arange(t, device=q.device)[:, None] - torch.arange(reach, device=q.device)
        near_k, near_v = (x[:, :, at.clamp(min=0)] for x in (k, v))
        s = (near_k @ q.unsqueeze(-1)).squeeze(-1) / math.sqrt(self.head_size)
        p = self.attn_drop(s.masked_fill(at < 0, -math.inf).softmax(-1))
        return (p.unsqueeze(-2) @ near_v).squeeze(-2)


class EncoderSdpa(Encoder):
    """Right: torch's kernel without a mask."""

    def core(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, dropout_p=self.attn_drop.p if self.training else 0.0)


class CappedTiled(Capped):
    """Right: in eval the cap is taken tile by tile, before the mask; training goes as it did."""

    def core(self, q, k, v):
        if self.training:
            return super().core(q, k, v)
        return _tiled(q, k, v, 1 / math.sqrt(self.head_size), cap=CAP)
