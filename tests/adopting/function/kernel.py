"""A repository of a kernel: a function in the style of Triton's tutorial beside the attention that it stands for."""

import math

import torch
from torch import Tensor


def plain(q: Tensor, k: Tensor, v: Tensor, causal: bool, sm_scale: float) -> Tensor:
    scores = (q @ k.transpose(-2, -1)) * sm_scale  # (B, H, T, T)
    if causal:
        T = q.size(-2)
        scores = scores.masked_fill(~torch.ones(T, T, dtype=torch.bool, device=q.device).tril(), -math.inf)
    return scores.softmax(-1) @ v


def _tiled(q: Tensor, k: Tensor, v: Tensor, causal: bool, sm_scale: float, tile: int, late: float) -> Tensor:
    """Keys by tiles, with a running maximum and sum, as flash attention goes."""
    T, S = q.size(-2), k.size(-2)
    wide = torch.promote_types(q.dtype, torch.float32)
    best = torch.full((*q.shape[:-1], 1), -math.inf, dtype=wide, device=q.device)
    total, out = torch.zeros_like(best), torch.zeros(*q.shape[:-1], v.size(-1), dtype=wide, device=q.device)
    for start in range(0, S, tile):
        keys = torch.arange(start, min(start + tile, S), device=q.device)
        s = (q.to(wide) @ k[..., keys, :].to(wide).transpose(-2, -1)) * sm_scale  # (B, H, T, tile)
        if causal:
            s = s.masked_fill(keys > torch.arange(T, device=q.device).unsqueeze(-1), -math.inf)
        new = torch.maximum(best, s.amax(-1, keepdim=True))
        decay, p = (best - new).exp(), (s - new).exp()
        total = total * decay * (late if start else 1.0) + p.sum(-1, keepdim=True)
        out, best = out * decay + p @ v[..., keys, :].to(wide), new
    return (out / total).to(q.dtype)


def tiled(q: Tensor, k: Tensor, v: Tensor, causal: bool, sm_scale: float) -> Tensor:
    return _tiled(q, k, v, causal, sm_scale, tile=16, late=1.0)


def tiled_wrong(q: Tensor, k: Tensor, v: Tensor, causal: bool, sm_scale: float) -> Tensor:
    """The running sum loses a hundredth at the edge of every tile: short sequences do not show it."""
    return _tiled(q, k, v, causal, sm_scale, tile=16, late=0.99)
