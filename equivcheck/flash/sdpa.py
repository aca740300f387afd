"""Causal attention by torch's fused kernels, with the derivatives that the kernels themselves do not have.

The backward pass of a kernel cannot be differentiated. A gradient that is differentiated again (`create_graph=True`, a
tangent, a batch of upstream gradients) therefore comes from the formula, by operations that autograd knows; every other
gradient comes from the kernel. Both need the same saved inputs, so this costs no memory. A hook on the kernel's node
would not work: with a tangent, the node fails before its hooks are called.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import forward_ad
from torch.autograd.graph import Node

__all__ = ["causal_attention", "is_transformed"]

HEADS_AT_ONCE = 65535  # CUDA's greatest grid in y and z: the memory-efficient kernel takes no more heads
UNLIMITED = ("cpu",)


def causal_attention(q: Tensor, k: Tensor, v: Tensor, *, dropout_p: float) -> Tensor:
    """softmax(q kᵀ / sqrt(D)) v over the keys up to the query, with derivatives of every order in reverse mode.

    Args:
        q: Queries, (B, H, T, D), of any B and H.
        k: Keys, of the same shape.
        v: Values, of the same shape.
        dropout_p: The rate at which each probability is dropped, in [0, 1).

    Returns:
        The mixed values, (B, H, T, D).
    """
    B, H, _, D = q.shape
    if B * H > HEADS_AT_ONCE and q.device.type not in UNLIMITED:
        dim, size = (0, max(1, HEADS_AT_ONCE // H)) if B > 1 else (1, HEADS_AT_ONCE)
        parts = zip(*(t.split(size, dim) for t in (q, k, v)), strict=True)
        return torch.cat([causal_attention(*part, dropout_p=dropout_p) for part in parts], dim)
    differentiable_twice = torch.is_grad_enabled() and not (
        torch.compiler.is_compiling() or torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]
    )
    if differentiable_twice and dropout_p > 0 and (q.requires_grad or k.requires_grad) and not v.requires_grad:
        v = v.detach().requires_grad_()  # the gradient of the values shows which probabilities were dropped
    scale = 1.0 / math.sqrt(D)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=None, dropout_p=dropout_p, is_causal=True, scale=scale)
    if not (differentiable_twice and y.requires_grad):
        return y
    return _DoubleBackward.apply(q, k, v, y, dropout_p)  # type: ignore[no-any-return, no-untyped-call]


def is_transformed(*tensors: Tensor) -> bool:
    """Whether a transform of torch.func, or forward-mode differentiation, is active: kernels have no rules for them."""
    if torch._C._are_functorch_transforms_active():
        return True
    if torch.compiler.is_compiling():
        return False
    return any(forward_ad.unpack_dual(t).tangent is not None for t in tensors)


class _DoubleBackward(torch.autograd.Function):
    """The identity of the kernel's result y; its gradient goes to the kernel, or by the formula to q, k and v."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, y: Tensor, dropout_p: float) -> Tensor:
        ctx.save_for_backward(q, k, v, y)
        ctx.dropout_p = dropout_p
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        if not torch.is_grad_enabled() and not is_transformed(g):
            return None, None, None, g, None
        q, k, v, y = ctx.saved_tensors
        if y.grad_fn is not None:
            _drop_uninitialised_gradients(y.grad_fn)
        keep_mask = _keep_mask(y, v) / (1.0 - ctx.dropout_p) if ctx.dropout_p > 0 else None
        return (*_gradients(q, k, v, g, keep_mask), None, None)


def _drop_uninitialised_gradients(node: Node) -> None:
    """Replace the kernel's gradients of q, k and v by None if its node receives no gradient the next time it runs.

    cuDNN's backward pass then returns uninitialised memory, which autograd would add to the gradients of the formula.
    """

    def hook(inputs: tuple[Tensor | None, ...], outputs: tuple[Tensor | None, ...]) -> tuple[None, ...] | None:
        if any(g is not None for g in outputs):
            return None
        handle.remove()
        return (None,) * len(inputs)

    handle = node.register_hook(hook)


def _gradients(q: Tensor, k: Tensor, v: Tensor, g: Tensor, keep_mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, (B, H, T, D) each.

    `g` is the gradient of the output; `keep_mask`, (B, H, T, T), is 0 for dropped probabilities and else 1 / (1 -
    rate).
    """
    T, scale = q.size(-2), 1.0 / math.sqrt(q.size(-1))
    with torch.autocast(g.device.type, enabled=False):  # autocast has cast the inputs of the kernel
        q, k, v = (t.to(g.dtype) for t in (q, k, v))
        future = torch.ones(T, T, dtype=torch.bool, device=g.device).triu(1)
        p = F.softmax(((q @ k.transpose(-2, -1)) * scale).masked_fill(future, -math.inf), dim=-1)  # (B, H, T, T)
        dp = g @ v.transpose(-2, -1)  # (B, H, T, T)
        dropped = p
        if keep_mask is not None:
            dp, dropped = dp * keep_mask, p * keep_mask
        ds = p * (dp - (dp * p).sum(-1, keepdim=True)) * scale  # (B, H, T, T)
        return ds @ k, ds.transpose(-2, -1) @ q, dropped.transpose(-2, -1) @ g


def _keep_mask(y: Tensor, v: Tensor) -> Tensor:
    """The probabilities that the kernel kept between `v` and `y`, (B, H, T, T), 0 or 1 in their dtype.

    The gradient of v is pᵀ times that of y. With a one-hot gradient of y, one query to a column, it is p after dropout.
    """
    T, D = y.shape[-2:]
    rows = []
    for first in range(0, T, D):
        hot = torch.zeros(T, D, dtype=y.dtype, device=y.device)
        hot[first : first + D].fill_diagonal_(1.0)
        (columns,) = torch.autograd.grad(y, v, hot.expand_as(y).contiguous(), retain_graph=True)  # (B, H, T, D)
        rows.append(columns[..., : min(D, T - first)].transpose(-2, -1))  # (B, H, queries, T)
    return (torch.cat(rows, -2) != 0).to(y.dtype)
