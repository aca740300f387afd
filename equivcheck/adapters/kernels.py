"""Kernels as functions of the contract, `f(q, k, v, *, is_causal, dropout_p, scale, …)` of (B, H, T, D) tensors."""

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import sdpa_kernel

from equivcheck.errors import UsageError
from equivcheck.runtime.kernel_trace import KERNELS

__all__ = ["Function", "flash_attn", "flex", "heads_last", "sdpa"]

Function = Callable[..., Tensor]


def heads_last(kernel: Callable[..., Any]) -> Function:
    """A kernel of (B, T, H, D) tensors in flash-attn's signature, `f(q, k, v, dropout_p, softmax_scale, causal)`.

    The kernel itself groups fewer heads of keys and values, and determines how its causal mask is aligned.
    """

    def attend(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        is_causal: bool = False,
        dropout_p: float = 0.0,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))  # (B, T, H, D)
        result = kernel(q, k, v, dropout_p=dropout_p, softmax_scale=scale, causal=is_causal)
        y: Tensor = result[0] if isinstance(result, tuple) else result
        return y.transpose(1, 2)

    return attend


def flash_attn() -> Function:
    """`flash_attn.flash_attn_func`; a UsageError where the package is not installed."""
    try:
        from flash_attn import flash_attn_func
    except ImportError as error:
        raise UsageError(
            f"flash-attn cannot be imported ({error}): pip install flash-attn, on a machine with CUDA"
        ) from None
    return heads_last(flash_attn_func)


def sdpa(kernel: str) -> Function:
    """`F.scaled_dot_product_attention` by one kernel and no other, of those in `runtime.kernel_trace.KERNELS`."""
    if kernel not in KERNELS:
        raise UsageError(f"unknown kernel {kernel!r}: allowed are {', '.join(KERNELS)}")

    def attend(
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
        with sdpa_kernel(KERNELS[kernel]):
            return F.scaled_dot_product_attention(
                q,
                k,
                v,
                attn_mask=attn_mask,
                dropout_p=dropout_p,
                is_causal=is_causal,
                scale=scale,
                enable_gqa=enable_gqa,
            )

    return attend


def flex() -> Function:
    """torch's FlexAttention: masks act through `score_mod`, and the causal mask is aligned top-left."""
    from torch.nn.attention.flex_attention import flex_attention

    def attend(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        is_causal: bool = False,
        scale: float | None = None,
        attn_mask: Tensor | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        shape = (q.size(0), q.size(1), q.size(2), k.size(2))
        mask = None if attn_mask is None else attn_mask.expand(shape)

        def changed(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
            if mask is not None:
                value = mask[b, h, i, j]
                score = score.where(value, -float("inf")) if mask.dtype.itemsize == 1 else score + value
            return score.where(i >= j, -float("inf")) if is_causal else score

        return flex_attention(q, k, v, score_mod=changed, scale=scale, enable_gqa=enable_gqa)

    return attend
