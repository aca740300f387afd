"""Wrong candidates for the functions of functions.py."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

WINDOW = 8
CAP = 4.0


def _scale(q: Tensor, scale: float | None) -> float:
    return 1 / math.sqrt(q.size(-1)) if scale is None else scale


def _shared(q: Tensor, k: Tensor, v: Tensor, enable_gqa: bool) -> tuple[Tensor, Tensor]:
    if not enable_gqa:
        return k, v
    return tuple(t.repeat_interleave(q.size(1) // t.size(1), dim=1) for t in (k, v))


def _masked(s: Tensor, mask: Tensor | None, is_causal: bool, diagonal: int = 1) -> Tensor:
    if is_causal:
        s = s.masked_fill(torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).triu(diagonal), -math.inf)
    if mask is None:
        return s
    return s.masked_fill(~mask, -math.inf) if mask.dtype == torch.bool else s + mask


def long_path(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Wrong: the path for more than 24 queries lets each of them see one key too many."""
    k, v = _shared(q, k, v, enable_gqa)
    s = _masked((q @ k.mT) * _scale(q, scale), attn_mask, is_causal, diagonal=2 if q.size(2) > 24 else 1)
    return F.dropout(s.softmax(-1), dropout_p) @ v


def size_of_values(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Wrong: the default scale is taken from the size of the values."""
    k, v = _shared(q, k, v, enable_gqa)
    s = _masked((q @ k.mT) * _scale(v, scale), attn_mask, is_causal)
    return F.dropout(s.softmax(-1), dropout_p) @ v


def wide_window(q, k, v, *, dropout_p=0.0, scale=None) -> Tensor:
    """Wrong: the window is one longer."""
    if q.size(2) != k.size(2):
        raise ValueError("a sliding window needs as many queries as keys")
    s = (q @ k.mT) * _scale(q, scale)
    near = torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).tril().triu(-WINDOW)
    return F.dropout(s.masked_fill(~near, -math.inf).softmax(-1), dropout_p) @ v


def heads_exchanged(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Wrong: shared heads are repeated as a whole and not one by one."""
    if enable_gqa:
        k, v = (t.repeat(1, q.size(1) // t.size(1), 1, 1) for t in (k, v))
    s = _masked((q @ k.mT) * _scale(q, scale), attn_mask, is_causal)
    return F.dropout(s.softmax(-1), dropout_p) @ v


def open_rows(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Wrong: rows of an additive mask that hide nothing are taken for zeros."""
    k, v = _shared(q, k, v, enable_gqa)
    if attn_mask is not None and attn_mask.dtype != torch.bool:
        hides = (attn_mask == -math.inf).any(-1, keepdim=True)
        attn_mask = torch.where(hides, attn_mask, torch.zeros_like(attn_mask))
    s = _masked((q @ k.mT) * _scale(q, scale), attn_mask, is_causal)
    return F.dropout(s.softmax(-1), dropout_p) @ v


def not_rescaled(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Wrong: what dropout leaves is not scaled up."""
    k, v = _shared(q, k, v, enable_gqa)
    p = _masked((q @ k.mT) * _scale(q, scale), attn_mask, is_causal).softmax(-1)
    return (p * torch.empty_like(p).bernoulli_(1 - dropout_p) if dropout_p else p) @ v


def values_dropped(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Wrong: dropout falls on the values."""
    k, v = _shared(q, k, v, enable_gqa)
    p = _masked((q @ k.mT) * _scale(q, scale), attn_mask, is_causal).softmax(-1)
    return p @ F.dropout(v, dropout_p)


def cap_after_mask(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Wrong: the soft cap comes after the mask and makes what is hidden merely unlikely."""
    k, v = _shared(q, k, v, enable_gqa)
    s = CAP * torch.tanh(_masked((q @ k.mT) * _scale(q, scale), attn_mask, is_causal) / CAP)
    return F.dropout(s.softmax(-1), dropout_p) @ v


def padding_by_count(
    q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
) -> Tensor:
    """Wrong: a boolean mask is read as how many keys are seen, which then are the first ones."""
    k, v = _shared(q, k, v, enable_gqa)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        attn_mask = attn_mask.expand(*attn_mask.shape[:-1], k.size(2))
        attn_mask = torch.arange(k.size(2), device=q.device) < attn_mask.sum(-1, keepdim=True)
    s = _masked((q @ k.mT) * _scale(q, scale), attn_mask, is_causal)
    return F.dropout(s.softmax(-1), dropout_p) @ v


def mask_scaled(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Wrong: an additive mask is scaled together with the scores."""
    k, v = _shared(q, k, v, enable_gqa)
    s = _masked(q @ k.mT, attn_mask, is_causal) * _scale(q, scale)
    return F.dropout(s.softmax(-1), dropout_p) @ v


def halves_merged(q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False) -> Tensor:
    """Wrong: two halves of more than 16 keys are merged by their sums, without what was taken off before exp."""
    k, v = _shared(q, k, v, enable_gqa)
    s = _masked((q @ k.mT) * _scale(q, scale), attn_mask, is_causal)
    if k.size(2) <= 16:
        return F.dropout(s.softmax(-1), dropout_p) @ v
    out, total = 0, 0
    for part, values in zip(s.chunk(2, -1), v.chunk(2, 2), strict=True):
        m = part.detach().amax(-1, keepdim=True)
        e = torch.exp(part - m.masked_fill(m == -math.inf, 0.0))
        out, total = out + F.dropout(e, dropout_p).to(v.dtype) @ values, total + e.sum(-1, keepdim=True)
    return (out / total).to(out.dtype)


class _KeysShort(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, bias, factor):
        p = (q @ k.mT * factor + bias).softmax(-1)
        ctx.factor = factor
        ctx.save_for_backward(q, k, v, p)
        return p @ v

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, d_out):
        q, k, v, p = ctx.saved_tensors
        d_p = d_out @ v.mT
        d_s = p * (d_p - (d_p * p).sum(-1, keepdim=True))
        return d_s @ k * ctx.factor, (p * d_p).mT @ q * ctx.factor, p.mT @ d_out, d_s, None


def keys_backward(q, k, v, *, is_causal=False, scale=None) -> Tensor:
    """Wrong: backward forgets for the keys that probabilities sum to one."""
    bias = _masked(q.new_zeros(q.size(0), q.size(1), q.size(2), k.size(2)), None, is_causal)
    return _KeysShort.apply(q, k, v, bias, _scale(q, scale))


# --- right in values, wrong under transforms


def float32_under_autocast(
    q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
) -> Tensor:
    """Wrong only under autocast: its result stays float32 where every matmul returns bfloat16."""
    k, v = _shared(q, k, v, enable_gqa)
    wide = torch.promote_types(q.dtype, torch.float32)
    with torch.autocast(q.device.type, enabled=False):
        s = _masked((q.to(wide) @ k.to(wide).mT) * _scale(q, scale), attn_mask, is_causal)
        return (F.dropout(s.softmax(-1), dropout_p) @ v.to(wide)).to(q.dtype)


class _Constant(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(q, k, v, bias, keep, factor):
        p = (q @ k.mT * factor + bias).softmax(-1)
        return (p * keep) @ v, p

    @staticmethod
    def setup_context(ctx, inputs, output):
        q, k, v, _, keep, ctx.factor = inputs
        ctx.mark_non_differentiable(output[1])
        ctx.save_for_backward(q, k, v, keep, output[1].detach())

    @staticmethod
    def backward(ctx, d_out, _):
        q, k, v, keep, p = ctx.saved_tensors
        d_p = (d_out @ v.mT) * keep
        d_s = p * (d_p - (d_p * p).sum(-1, keepdim=True))
        return d_s @ k * ctx.factor, d_s.mT @ q * ctx.factor, (p * keep).mT @ d_out, d_s, None, None


def constant_probabilities(
    q, k, v, *, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False
) -> Tensor:
    """Wrong only when differentiated twice: backward takes the saved probabilities for constants, in silence."""
    k, v = _shared(q, k, v, enable_gqa)
    if q.dtype != torch.float64 and torch.is_autocast_enabled(q.device.type):
        q, k, v = (t.to(torch.get_autocast_dtype(q.device.type)) for t in (q, k, v))
    with torch.autocast(q.device.type, enabled=False):
        bias = q.new_zeros(q.size(0), q.size(1), q.size(2), k.size(2))
        keep = F.dropout(torch.ones_like(bias), dropout_p)
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.to(q.dtype)
        return _Constant.apply(q, k, v, _masked(bias, attn_mask, is_causal), keep, _scale(q, scale))[0]
