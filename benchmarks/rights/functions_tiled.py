"""Candidates that go over queries, keys or heads in pieces. Their originals are in functions.py."""

import math

import torch
from parts_of_functions import result_dtype, scale_of, shared_heads
from torch import Tensor

TILE = 16
WINDOW = 8
CAP = 4.0


def _wide(*tensors: Tensor) -> list[Tensor]:
    return [t.to(torch.promote_types(t.dtype, torch.float32)) for t in tensors]


def _bias(q: Tensor, k: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor | None:
    """One additive mask of full shape (B, H, Q, K), or nothing."""
    if mask is None and not is_causal:
        return None
    wide = torch.promote_types(q.dtype, torch.float32)
    bias = torch.zeros(q.size(2), k.size(2), dtype=wide, device=q.device)
    if is_causal:
        bias = bias.masked_fill(torch.ones_like(bias, dtype=torch.bool).triu(1), -math.inf)
    if mask is not None:
        bias = torch.where(mask, bias, -math.inf) if mask.dtype == torch.bool else bias + mask
    return bias.expand(q.size(0), q.size(1), q.size(2), k.size(2))


def _keep(q: Tensor, k: Tensor, dropout_p: float) -> Tensor | None:
    if not dropout_p:
        return None
    keep = torch.zeros(q.size(0), q.size(1), q.size(2), k.size(2), dtype=q.dtype, device=q.device)
    return keep if dropout_p >= 1 else keep.bernoulli_(1 - dropout_p) / (1 - dropout_p)


def _tiles(n: int, size: int = TILE) -> list[slice]:
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def _finite(m: Tensor) -> Tensor:
    """A maximum of nothing is -inf, from which nothing can be taken off."""
    return m.masked_fill(m == -math.inf, 0.0)


def _running(q, k, v, bias, keep, factor, cap=None, size=TILE) -> Tensor:
    """One pass over tiles of keys with a running maximum, for all queries at once; rows without a key are NaN."""
    m = torch.full_like(q[..., :1], -math.inf)
    total = torch.zeros_like(q[..., :1])
    out = torch.zeros_like(q[..., :1])
    for at in _tiles(k.size(2), size):
        s = q @ k[:, :, at].mT * factor
        if cap is not None:
            s = torch.tanh(s / cap) * cap
        if bias is not None:
            s = s + bias[..., at]
        new = torch.maximum(m, s.detach().amax(-1, keepdim=True))
        shrink = torch.exp(m - _finite(new))
        e = torch.exp(s - _finite(new))
        total = total * shrink + e.sum(-1, keepdim=True)
        out = out * shrink + (e if keep is None else e * keep[..., at]) @ v[:, :, at]
        m = new
    return out / total


class _Flash(torch.autograd.Function):
    """Tiles both ways; the log-sum-exp is a second result, so that backward can be differentiated itself."""

    generate_vmap_rule = True

    @staticmethod
    def forward(q, k, v, bias, keep, factor):
        m = torch.full_like(q[..., :1], -math.inf)
        total, out = torch.zeros_like(m), torch.zeros_like(m)
        for at in _tiles(k.size(2)):
            s = q @ k[:, :, at].mT * factor
            if bias is not None:
                s = s + bias[..., at]
            new = torch.maximum(m, s.amax(-1, keepdim=True))
            e, shrink = torch.exp(s - _finite(new)), torch.exp(m - _finite(new))
            total = total * shrink + e.sum(-1, keepdim=True)
            out = out * shrink + (e if keep is None else e * keep[..., at]) @ v[:, :, at]
            m = new
        return out / total, m + total.log()

    @staticmethod
    def setup_context(ctx, inputs, output):
        q, k, v, bias, keep, ctx.factor = inputs
        ctx.save_for_backward(q, k, v, bias, keep, *output)

    @staticmethod
    def backward(ctx, d_out, d_lse):
        q, k, v, bias, keep, out, lse = ctx.saved_tensors
        rest = d_lse - (d_out * out).sum(-1, keepdim=True)
        d_q, d_k, d_v, d_bias = torch.zeros_like(q), [], [], []
        for at in _tiles(k.size(2)):
            s = q @ k[:, :, at].mT * ctx.factor
            p = torch.exp((s if bias is None else s + bias[..., at]) - lse)
            d_p = d_out @ v[:, :, at].mT
            d_v.append((p if keep is None else p * keep[..., at]).mT @ d_out)
            d_s = p * ((d_p if keep is None else d_p * keep[..., at]) + rest)
            d_q = d_q + d_s @ k[:, :, at] * ctx.factor
            d_k.append(d_s.mT @ q * ctx.factor)
            d_bias.append(d_s)
        d_bias = None if bias is None else torch.cat(d_bias, -1)
        return d_q, torch.cat(d_k, 2), torch.cat(d_v, 2), d_bias, None, None


def flash(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Right: tiles of keys with a running maximum, backward written by hand, float32 in between."""
    k, v = shared_heads(q, k, v, enable_gqa)
    result = result_dtype(q)
    with torch.autocast(q.device.type, enabled=False):
        q, k, v = _wide(q, k, v)
        bias, keep = _bias(q, k, attn_mask, is_causal), _keep(q, k, dropout_p)
        out, _ = _Flash.apply(q, k, v, bias, keep, scale_of(q, scale))
        return out.to(result)


def flash_autograd(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Right: tiles of queries and of keys, backward left to autograd; the maximum needs no gradient."""
    k, v = shared_heads(q, k, v, enable_gqa)
    result = result_dtype(q)
    with torch.autocast(q.device.type, enabled=False):
        q, k, v = _wide(q, k, v)
        bias, keep = _bias(q, k, attn_mask, is_causal), _keep(q, k, dropout_p)
        parts = []
        for rows in _tiles(q.size(2)):
            some = (None if t is None else t[:, :, rows] for t in (bias, keep))
            parts.append(_running(q[:, :, rows], k, v, *some, scale_of(q, scale)))
        return torch.cat(parts, 2).to(result)


def split_keys(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Right: three parts of the keys are attended to apart, their results merged by log-sum-exp."""
    k, v = shared_heads(q, k, v, enable_gqa)
    result = result_dtype(q)
    with torch.autocast(q.device.type, enabled=False):
        q, k, v = _wide(q, k, v)
        bias, keep = _bias(q, k, attn_mask, is_causal), _keep(q, k, dropout_p)
        outs, sums = [], []
        for at in _tiles(k.size(2), -(-k.size(2) // 3)):
            s = q @ k[:, :, at].mT * scale_of(q, scale)
            s = s if bias is None else s + bias[..., at]
            m = _finite(s.detach().amax(-1, keepdim=True))
            e = torch.exp(s - m)
            total = e.sum(-1, keepdim=True)
            empty = total == 0
            total = total.masked_fill(empty, 1.0)
            outs.append((e if keep is None else e * keep[..., at]) @ v[:, :, at] / total)
            sums.append((m + total.log()).masked_fill(empty, -math.inf))
        weights = torch.stack(sums).softmax(0)
        return (weights * torch.stack(outs)).sum(0).to(result)


def online(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Right: the softmax in two passes, the first only for the maximum and the sum, four keys at a time."""
    k, v = shared_heads(q, k, v, enable_gqa)
    result = result_dtype(q)
    with torch.autocast(q.device.type, enabled=False):
        q, k, v = _wide(q, k, v)
        s = q @ k.mT * scale_of(q, scale)
        bias, keep = _bias(q, k, attn_mask, is_causal), _keep(q, k, dropout_p)
        if bias is not None:
            s = s + bias
        m, total = torch.full_like(s[..., :1], -math.inf), torch.zeros_like(s[..., :1])
        for few in s.split(4, -1):
            new = torch.maximum(m, few.detach().amax(-1, keepdim=True))
            total = total * torch.exp(m - _finite(new)) + torch.exp(few - _finite(new)).sum(-1, keepdim=True)
            m = new
        p = torch.exp(s - _finite(m)) / total
        return ((p if keep is None else p * keep) @ v).to(result)


def query_chunks(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Right: sixteen queries at a time; causal ones are shown no key after their last."""
    k, v = shared_heads(q, k, v, enable_gqa)
    if attn_mask is not None:
        attn_mask = attn_mask.expand(q.size(0), q.size(1), q.size(2), k.size(2))
    parts = []
    for rows in _tiles(q.size(2)):
        seen = slice(0, min(rows.stop, k.size(2)) if is_causal else k.size(2))
        s = q[:, :, rows] @ k[:, :, seen].mT * scale_of(q, scale)
        if is_causal:
            i = torch.arange(rows.start, rows.stop, device=q.device)
            s = s.masked_fill(i[:, None] < torch.arange(seen.stop, device=q.device), -math.inf)
        if attn_mask is not None:
            mask = attn_mask[:, :, rows, seen]
            s = s.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else s + mask
        parts.append(torch.dropout(s.softmax(-1), dropout_p, True) @ v[:, :, seen])
    return torch.cat(parts, 2)


def head_chunks(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Right: one head at a time; a shared head is looked up, not repeated."""
    groups = q.size(1) // k.size(1) if enable_gqa else 1
    if attn_mask is not None:
        attn_mask = attn_mask.expand(q.size(0), q.size(1), q.size(2), k.size(2))
    outs = []
    for h in range(q.size(1)):
        s = torch.bmm(q[:, h], k[:, h // groups].mT) * scale_of(q, scale)
        if is_causal:
            s = s.masked_fill(torch.ones_like(s, dtype=torch.bool).triu(1), -math.inf)
        if attn_mask is not None:
            mask = attn_mask[:, h]
            s = s.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else s + mask
        outs.append(torch.bmm(torch.dropout(s.softmax(-1), dropout_p, True), v[:, h // groups]))
    return torch.stack(outs, 1)


def banded(q, k, v, *, dropout_p=0.0, scale=None) -> Tensor:
    """Right: eight queries at a time with only the fifteen keys that their windows can reach."""
    if q.size(2) != k.size(2):
        raise ValueError("a sliding window needs as many queries as keys")
    parts = []
    for rows in _tiles(q.size(2), WINDOW):
        seen = slice(max(0, rows.start - WINDOW + 1), rows.stop)
        i = torch.arange(rows.start, rows.stop, device=q.device)[:, None]
        j = torch.arange(seen.start, seen.stop, device=q.device)
        s = q[:, :, rows] @ k[:, :, seen].mT * scale_of(q, scale)
        s = s.masked_fill((j > i) | (j <= i - WINDOW), -math.inf)
        parts.append(torch.dropout(s.softmax(-1), dropout_p, True) @ v[:, :, seen])
    return torch.cat(parts, 2)


def capped_tiles(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Right: the soft cap is taken inside of each tile, before its part of the mask."""
    k, v = shared_heads(q, k, v, enable_gqa)
    result = result_dtype(q)
    with torch.autocast(q.device.type, enabled=False):
        q, k, v = _wide(q, k, v)
        bias, keep = _bias(q, k, attn_mask, is_causal), _keep(q, k, dropout_p)
        return _running(q, k, v, bias, keep, scale_of(q, scale), cap=CAP).to(result)


def alibi_tiles(q, k, v, *, dropout_p=0.0, is_causal=False, scale=None) -> Tensor:
    """Right: the bias of a head is drawn in float32, and the tiles run over the keys with it."""
    result = result_dtype(q)
    with torch.autocast(q.device.type, enabled=False):
        q, k, v = _wide(q, k, v)
        i = torch.arange(q.size(2), device=q.device)[:, None]
        distance = (i - torch.arange(k.size(2), device=q.device)).abs()
        slopes = 0.5 ** (torch.arange(1, q.size(1) + 1, device=q.device, dtype=q.dtype) * (8.0 / q.size(1)))
        bias = _bias(q, k, slopes[:, None, None] * -distance, is_causal)
        return _running(q, k, v, bias, _keep(q, k, dropout_p), scale_of(q, scale), size=32).to(result)
