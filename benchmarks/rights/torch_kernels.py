"""Right candidates of torch's kernels on CUDA, each alone, and of FlexAttention compiled."""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def original(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    """Softmax attention spelled out, causal from the top left."""
    s = q @ k.mT * (1 / math.sqrt(q.size(-1)) if scale is None else scale)  # (B, H, T, S)
    if is_causal:
        s = s.masked_fill(torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).triu(1), -math.inf)
    return s.softmax(-1) @ v


def _by(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor, is_causal: bool, scale: float | None) -> Tensor:
    q, k, v = (t if t.stride(-1) == 1 else t.contiguous() for t in (q, k, v))  # the kernels read whole heads
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=scale)


def flash(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    """The flash kernel: half precision, and heads of up to 256."""
    return _by(SDPBackend.FLASH_ATTENTION, q, k, v, is_causal, scale)


def efficient(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    """The memory-efficient kernel: no float64."""
    return _by(SDPBackend.EFFICIENT_ATTENTION, q, k, v, is_causal, scale)


def cudnn(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    """cuDNN's kernel: half precision, and heads whose size is a multiple of 8."""
    return _by(SDPBackend.CUDNN_ATTENTION, q, k, v, is_causal, scale)


def math_kernel(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    """The kernel that spells the formula out."""
    return _by(SDPBackend.MATH, q, k, v, is_causal, scale)


@functools.cache
def _compiled() -> object:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=False)


def _after(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
    return i >= j


def flex(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    """FlexAttention, compiled for each shape."""
    from torch.nn.attention.flex_attention import create_block_mask

    mask = create_block_mask(_after, None, None, q.size(2), k.size(2), device=q.device) if is_causal else None
    return _compiled()(q, k, v, block_mask=mask, scale=scale)
