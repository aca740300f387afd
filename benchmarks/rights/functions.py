"""Originals: attentions as functions. The candidates are in functions_plain.py and functions_tiled.py."""

import math

import torch
from torch import Tensor

WINDOW = 8
CAP = 4.0


def _scale(q: Tensor, scale: float | None) -> float:
    return 1 / math.sqrt(q.size(-1)) if scale is None else scale


def _causal(s: Tensor) -> Tensor:
    """Later keys are hidden; the first query stands beside the first key."""
    hidden = torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).triu(1)
    return s.masked_fill(hidden, -math.inf)


def _masked(s: Tensor, mask: Tensor | None) -> Tensor:
    if mask is None:
        return s
    return s.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else s + mask


def reference(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Eager softmax attention with all options; a mask and `is_causal` may be given together."""
    if enable_gqa:
        k, v = (t.repeat_interleave(q.size(1) // t.size(1), dim=1) for t in (k, v))
    s = (q @ k.transpose(-2, -1)) * _scale(q, scale)
    if is_causal:
        s = _causal(s)
    p = _masked(s, attn_mask).softmax(dim=-1)
    return torch.dropout(p, dropout_p, dropout_p > 0) @ v


def documented(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """What torch documents: a mask and `is_causal` exclude one another."""
    if is_causal and attn_mask is not None:
        raise RuntimeError("attn_mask must not be set when is_causal=True")
    return reference(
        q, k, v, attn_mask=attn_mask, dropout_p=dropout_p, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa
    )


def windowed(q, k, v, *, dropout_p=0.0, scale=None) -> Tensor:
    """Every token sees itself and the seven before it; self-attention only, as many queries as keys."""
    if q.size(2) != k.size(2):
        raise ValueError("a sliding window needs as many queries as keys")
    s = (q @ k.transpose(-2, -1)) * _scale(q, scale)
    i = torch.arange(q.size(2), device=q.device)
    back = i[:, None] - i[None, :]
    s = s.masked_fill((back < 0) | (back >= WINDOW), -math.inf)
    return torch.dropout(s.softmax(-1), dropout_p, dropout_p > 0) @ v


def capped(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Scores pass through a soft cap, and only then are they masked."""
    if enable_gqa:
        k, v = (t.repeat_interleave(q.size(1) // t.size(1), dim=1) for t in (k, v))
    s = CAP * torch.tanh((q @ k.transpose(-2, -1)) * _scale(q, scale) / CAP)
    if is_causal:
        s = _causal(s)
    p = _masked(s, attn_mask).softmax(dim=-1)
    return torch.dropout(p, dropout_p, dropout_p > 0) @ v


def alibi(q, k, v, *, dropout_p=0.0, is_causal=False, scale=None) -> Tensor:
    """Each head takes its own slope times the distance off its scores."""
    s = (q @ k.transpose(-2, -1)) * _scale(q, scale)
    wide = torch.promote_types(q.dtype, torch.float32)
    slopes = torch.exp2(torch.arange(1, q.size(1) + 1, device=q.device, dtype=wide) * (-8.0 / q.size(1)))
    i, j = (torch.arange(n, device=q.device) for n in (q.size(2), k.size(2)))
    s = s - (slopes[:, None, None] * (i[:, None] - j[None, :]).abs()).to(s.dtype)
    if is_causal:
        s = _causal(s)
    return torch.dropout(s.softmax(-1), dropout_p, dropout_p > 0) @ v


def heads_last(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False) -> Tensor:
    """flash-attn's layout and names: (B, T, H, D); fewer heads of k and v are shared among q's."""
    groups = q.size(2) // k.size(2)
    k, v = (t.repeat_interleave(groups, dim=2).transpose(1, 2) for t in (k, v))
    s = (q.transpose(1, 2) @ k.mT) * _scale(q, softmax_scale)
    if causal:
        s = _causal(s)
    return (torch.dropout(s.softmax(-1), dropout_p, dropout_p > 0) @ v).transpose(1, 2)


def plain(q, k, v) -> Tensor:
    """No options at all: every query sees every key."""
    return torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(q.size(-1)), dim=-1) @ v


def log_softmaxed(q, k, v, *, is_causal=False, scale=None) -> Tensor:
    """The probabilities by way of their logarithms."""
    s = (q @ k.transpose(-2, -1)) * _scale(q, scale)
    if is_causal:
        s = _causal(s)
    return torch.log_softmax(s, dim=-1).exp().to(v.dtype) @ v


def grouped(q, k, v, *, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """With `enable_gqa` neighbouring heads of q share one head of k and v; indexed, not repeated."""
    if enable_gqa:
        owner = torch.arange(q.size(1), device=q.device) // (q.size(1) // k.size(1))
        k, v = k.index_select(1, owner), v.index_select(1, owner)
    s = torch.matmul(q, k.mT).mul(_scale(q, scale))
    if is_causal:
        s = _causal(s)
    return torch.matmul(s.softmax(-1), v)


def other_names(q, k, v, causal=False, sm_scale=None, dropout=0.0) -> Tensor:
    """The names of a Triton tutorial."""
    return reference(q, k, v, is_causal=causal, scale=sm_scale, dropout_p=dropout)
