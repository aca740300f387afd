"""Attention in plain operations, as an oracle for kernels that do not run in float64."""

import math

import torch
from torch import Tensor

__all__ = ["READINGS", "softmax_attention", "softmax_attention_top_left"]

READINGS = ("softmax_attention", "softmax_attention_top_left")
"""The readings of this module, in the order in which they are offered."""


def softmax_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    is_causal: bool = False,
    dropout_p: float = 0.0,
    scale: float | None = None,
    attn_mask: Tensor | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(q k^T * scale + mask) v, with the causal mask aligned bottom-right, as flash-attn has it.

    Args:
        q: (B, H, T, D).
        k: (B, Hkv, S, D); with fewer heads than `q`, each serves H / Hkv heads of queries that follow each other.
        v: (B, Hkv, S, Dv).
        is_causal: Whether the last query sees all keys, and each earlier one a key less.
        dropout_p: The rate at which probabilities are dropped.
        scale: The factor of the scores, by default 1 / sqrt(D).
        attn_mask: Broadcasts to (B, H, T, S): boolean, True for a visible key, or added to the scores.
        enable_gqa: Says nothing more than the shapes do.

    Returns:
        (B, H, T, Dv).
    """
    return _attention(q, k, v, is_causal, k.size(-2) - q.size(-2), dropout_p, scale, attn_mask)


def softmax_attention_top_left(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    is_causal: bool = False,
    dropout_p: float = 0.0,
    scale: float | None = None,
    attn_mask: Tensor | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """As `softmax_attention`, with the causal mask aligned top-left, as torch has it: the first query sees one key."""
    return _attention(q, k, v, is_causal, 0, dropout_p, scale, attn_mask)


def _attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    is_causal: bool,
    diagonal: int,
    dropout_p: float,
    scale: float | None,
    attn_mask: Tensor | None,
) -> Tensor:
    group = q.size(-3) // k.size(-3)
    if group > 1:
        k, v = (x.repeat_interleave(group, dim=-3) for x in (k, v))  # (B, H, S, D), (B, H, S, Dv)
    scores = q @ k.mT * (1 / math.sqrt(q.size(-1)) if scale is None else scale)  # (B, H, T, S)
    if is_causal:
        seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).tril(diagonal)  # (T, S)
        scores = scores.masked_fill(~seen, -math.inf)
    if attn_mask is not None:
        is_bool = attn_mask.dtype is torch.bool
        scores = scores.masked_fill(~attn_mask, -math.inf) if is_bool else scores + attn_mask
    return torch.dropout(scores.softmax(-1), dropout_p, True) @ v  # (B, H, T, Dv)
