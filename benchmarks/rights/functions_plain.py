"""Candidates that write the same attention in another way, without tiles. Their originals are in functions.py."""

import math

import torch
import torch.nn.functional as F
from parts_of_functions import result_dtype, scale_of, shared_heads
from torch import Tensor
from torch.utils.checkpoint import checkpoint

LOG2_E = math.log2(math.e)


def _additive(q: Tensor, k: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor | None:
    """The mask and causality as one additive mask of q's dtype, or nothing."""
    if mask is not None and mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=q.dtype).masked_fill(mask.logical_not(), -math.inf)
    if not is_causal:
        return mask
    later = torch.full((q.size(2), k.size(2)), -math.inf, dtype=q.dtype, device=q.device).triu(1)
    return later if mask is None else mask + later


def _keep(p: Tensor, dropout_p: float) -> Tensor:
    """Drawn by hand: one or zero, over the probability of one."""
    if dropout_p >= 1:
        return torch.zeros_like(p)
    return torch.empty_like(p).bernoulli_(1 - dropout_p) / (1 - dropout_p)


sdpa = F.scaled_dot_product_attention  # right: it is what `documented` writes out


def sdpa_merged(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Right: torch's kernel; where both a mask and causality are asked for, they are merged first."""
    if attn_mask is not None and is_causal:
        attn_mask, is_causal = _additive(q, k, attn_mask, True), False
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=attn_mask, dropout_p=dropout_p, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa
    )


def sdpa_heads_last(q, k, v, dropout_p=0.0, softmax_scale=None, causal=False) -> Tensor:
    """Right: torch's kernel with the heads brought forward and back again."""
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    shared = q.size(1) != k.size(1)
    out = F.scaled_dot_product_attention(
        q, k, v, dropout_p=dropout_p, scale=softmax_scale, is_causal=causal, enable_gqa=shared
    )
    return out.transpose(1, 2)


def upcast(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Right: everything in float32 (float64 stays), rounded once at the end to what a matmul would return."""
    k, v = shared_heads(q, k, v, enable_gqa)
    result, wide = result_dtype(q), torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        q, k, v = (t.to(wide) for t in (q, k, v))
        bias = _additive(q, k, attn_mask, is_causal)
        s = torch.matmul(q, k.mT) * scale_of(q, scale)
        p = (s if bias is None else s + bias.to(wide)).softmax(-1)
        return torch.matmul(F.dropout(p, dropout_p) if dropout_p else p, v).to(result)


def base_two(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Right: powers of two, as GPUs have them; log2(e) goes into the scale and the mask."""
    k, v = shared_heads(q, k, v, enable_gqa)
    wide = torch.promote_types(q.dtype, torch.float32)
    s = torch.matmul(q, k.mT).to(wide) * (scale_of(q, scale) * LOG2_E)
    bias = _additive(q, k, attn_mask, is_causal)
    if bias is not None:
        s = s + bias.to(wide) * LOG2_E
    e = torch.exp2(s - s.detach().amax(-1, keepdim=True))
    p = e / e.sum(-1, keepdim=True)
    if dropout_p:
        p = p * _keep(p, dropout_p)
    return torch.matmul(p.to(v.dtype), v)


def base_two_other_names(q, k, v, causal=False, sm_scale=None, dropout=0.0) -> Tensor:
    """Right: the same under a Triton tutorial's names."""
    return base_two(q, k, v, is_causal=causal, scale=sm_scale, dropout_p=dropout)


def _core(q, k, v, bias, factor, dropout_p):
    s = (q @ k.mT) * factor
    return F.dropout((s if bias is None else s + bias).softmax(-1), dropout_p) @ v


def checkpointed(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Right: the probabilities are not kept but computed again in backward, with the same dropout."""
    k, v = shared_heads(q, k, v, enable_gqa)
    bias = _additive(q, k, attn_mask, is_causal)
    if not torch.is_grad_enabled():
        return _core(q, k, v, bias, scale_of(q, scale), dropout_p)
    return checkpoint(_core, q, k, v, bias, scale_of(q, scale), dropout_p, use_reentrant=False)


def einsum(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Right: two einsums around the softmax, heads shared inside of them."""
    groups, result = q.size(1) // k.size(1) if enable_gqa else 1, result_dtype(q)
    q = q.unflatten(1, (-1, groups))
    s = torch.einsum("bngid,bnjd->bngij", q, k) * scale_of(q, scale)
    bias = _additive(q[:, 0], k, attn_mask, is_causal)
    if bias is not None:
        s = (s.flatten(1, 2) + bias).unflatten(1, (-1, groups))
    p = s.softmax(-1)
    if dropout_p:
        p = F.dropout(p, dropout_p)
    return torch.einsum("bngij,bnjd->bngid", p.to(v.dtype), v).flatten(1, 2).to(result)


def scale_in_q(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Right: the queries are scaled, not the scores."""
    k, v = shared_heads(q, k, v, enable_gqa)
    s = (q * scale_of(q, scale)) @ k.mT
    bias = _additive(q, k, attn_mask, is_causal)
    return F.dropout((s if bias is None else s + bias).softmax(-1), dropout_p) @ v


def baddbmm(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Right: batch and heads as one dimension, the mask added by the same call that multiplies."""
    k, v = shared_heads(q, k, v, enable_gqa)
    B, H, Q, K = *q.shape[:3], k.size(2)
    bias = _additive(q, k, attn_mask, is_causal)
    start = q.new_zeros(1, 1, 1) if bias is None else bias.expand(B, H, Q, K).reshape(B * H, Q, K)
    q, k, v = (t.reshape(B * H, t.size(2), t.size(3)) for t in (q, k, v))
    s = torch.baddbmm(start, q, k.mT, beta=0 if bias is None else 1, alpha=scale_of(q, scale))
    return torch.bmm(F.dropout(s.softmax(-1), dropout_p), v).unflatten(0, (B, H))


def additive(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Right: every mask is added, none is filled in."""
    k, v = shared_heads(q, k, v, enable_gqa)
    s = q @ k.mT * scale_of(q, scale)
    bias = _additive(q, k, attn_mask, is_causal)
    return F.dropout(F.softmax(s if bias is None else s + bias, dim=-1), dropout_p) @ v


def decode(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Right: one query has a path of its own, a sum over keys and no matmul of matrices."""
    k, v = shared_heads(q, k, v, enable_gqa)
    if q.size(2) != 1:
        return additive(q, k, v, attn_mask=attn_mask, dropout_p=dropout_p, is_causal=is_causal, scale=scale)
    result, wide = result_dtype(q), torch.promote_types(q.dtype, torch.float32)
    s = (q.to(wide) * k.to(wide)).sum(-1) * scale_of(q, scale)
    bias = _additive(q, k, attn_mask, is_causal)
    if bias is not None:
        s = (s.unsqueeze(2) + bias).squeeze(2)
    p = F.dropout(s.softmax(-1), dropout_p)
    return (p.unsqueeze(-1) * v.to(wide)).sum(2, keepdim=True).to(result)


def score_mod(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Right: FlexAttention's way, a function of the score and of the places it stands at."""

    def causal(score, b, h, i, j):
        return torch.where(i >= j, score, -math.inf)

    def masked(score, b, h, i, j):
        whole = attn_mask.expand(score.shape)
        return torch.where(whole, score, -math.inf) if whole.dtype == torch.bool else score + whole

    mods = [causal] * bool(is_causal) + [masked] * (attn_mask is not None)
    k, v = shared_heads(q, k, v, enable_gqa)
    score = q @ k.mT * scale_of(q, scale)
    places = torch.meshgrid(*(torch.arange(n, device=q.device) for n in score.shape), indexing="ij")
    for mod in mods:
        score = mod(score, *places)
    return F.dropout(score.softmax(-1), dropout_p) @ v


def gqa_view(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Right: heads of k and v are broadcast over a view of q, never repeated in memory."""
    shape = (q.size(0), q.size(1), q.size(2), k.size(2))
    n = k.size(1) if enable_gqa else q.size(1)
    groups = q.size(1) // n
    s = q.unflatten(1, (n, groups)) @ k.unsqueeze(2).mT * scale_of(q, scale)
    bias = _additive(q, k, attn_mask, is_causal)
    if bias is not None:
        s = s + bias.expand(shape).unflatten(1, (n, groups))
    return (F.dropout(s.softmax(-1), dropout_p) @ v.unsqueeze(2)).flatten(1, 2)


def own_bernoulli(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Right: dropout is drawn by hand; where it drops and how it rescales are the same."""
    k, v = shared_heads(q, k, v, enable_gqa)
    s = q @ k.mT * scale_of(q, scale)
    bias = _additive(q, k, attn_mask, is_causal)
    p = (s if bias is None else s + bias).softmax(-1)
    return (p * _keep(p, dropout_p) if dropout_p else p) @ v


def through_logsumexp(q, k, v) -> Tensor:
    """Right: the exponential of what is left of a score after the logarithm of the sum."""
    wide = torch.promote_types(q.dtype, torch.float32)
    s = (q @ k.mT).to(wide) * q.size(-1) ** -0.5
    return torch.exp(s - s.logsumexp(-1, keepdim=True)).to(v.dtype) @ v


def sdpa_no_dropout(q, k, v, *, is_causal=False, scale=None) -> Tensor:
    """Right: torch's kernel takes its probabilities without logarithms."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=scale)


def folded_groups(q, k, v, *, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Right: queries of one group are laid one after another, as if they were more queries of one head."""
    n = k.size(1) if enable_gqa else q.size(1)
    Q, K = q.size(2), k.size(2)
    rows = q.reshape(q.size(0), n, -1, q.size(3))
    s = rows @ k.mT * scale_of(q, scale)
    if is_causal:
        i = torch.arange(rows.size(2), device=q.device) % Q
        s = s.masked_fill(i[:, None] < torch.arange(K, device=q.device), -math.inf)
    return (s.softmax(-1) @ v).reshape(q.size(0), q.size(1), Q, v.size(3))
