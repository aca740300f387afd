"""The rounding errors of operations that have a rule; every other operation rounds its result once.

A rule takes the operation's float64 result and its arguments, adds errors to the result in place and returns it.
`docs/tolerance.md` derives the sizes.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from equivcheck.numerics.error_model import ErrorModel, Rule
from equivcheck.numerics.softmax_rules import SOFTMAX_RULES

__all__ = ["RULES"]


def _product(model: ErrorModel, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    a, b = args[-2:]
    root = torch.matmul(a * a, b * b).sqrt_().mul_(abs(kwargs.get("alpha", 1.0)))
    size = model.sum_error(out, root, a.shape[-1]) + model.u_factor * root
    recompute_error = model.origins.recompute_error(a) if a.dim() >= 2 else None
    if recompute_error is not None:  # exponentials mix the values before the division by their sum
        recompute_error = recompute_error.reshape(a.shape if a.stride(-1) <= a.stride(-2) else a.mT.shape)
        recompute_error = recompute_error if a.stride(-1) <= a.stride(-2) else recompute_error.mT
        size = size + torch.matmul((a * recompute_error).square(), b * b).sqrt_()
    model.perturb(out, size)
    model.summed = model.u_sum * math.sqrt(a.shape[-1]) * root / out.abs()
    if b.dim() >= 2:
        model.origins.remember(a, b, out)
    return out


def _sum(model: ErrorModel, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    x = args[0]
    dim = args[1] if len(args) > 1 and isinstance(args[1], int | list | tuple) else None
    keep = bool(args[2]) if len(args) > 2 else bool(kwargs.get("keepdim", False))
    if not out.is_floating_point() or out.numel() == 0:
        return out
    n = max(1, x.numel() // out.numel())
    if dim is None or (isinstance(dim, list | tuple) and not dim):
        root = (x * x).sum().sqrt()
    else:
        root = (x * x).sum(dim, keepdim=keep).sqrt()
    return model.perturb(out, model.sum_error(out, root, n))


def _mean(model: ErrorModel, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    n = max(1, args[0].numel() // max(out.numel(), 1))
    return model.perturb(out, model.u * out.abs() + model.u_sum * math.sqrt(n) * out.abs())


def _layer_norm(model: ErrorModel, out: tuple[Tensor, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    x, weight, bias = args[0], args[2], args[3]
    y, mean, rstd = out
    scaled = y if bias is None else y - bias
    spread = (x.abs() + mean.abs()) * rstd
    if weight is not None:
        spread = spread * weight.abs()
    model.perturb(y, model.u * (y.abs() + scaled.abs()) + model.u_sum * spread)
    # mean and rstd may be saved for the backward pass in the dtype itself
    model.perturb(mean, model.relative(mean))
    model.perturb(rstd, model.relative(rstd))
    return out


def _layer_norm_backward(
    model: ErrorModel, out: tuple[Tensor | None, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    g, x, shape, mean, rstd, weight = args[:6]
    normed = (x - mean) * rstd
    scaled = g if weight is None else g * weight
    dx, dw, db = out
    if dx is not None:
        dims = tuple(range(-len(shape), 0))
        root = scaled.square().mean(dims, keepdim=True).sqrt()
        size = model.u * dx.abs() + 4 * model.u_sum * rstd * (scaled.abs() + root * (1 + normed.abs()))
        model.perturb(dx, size)
    rows = tuple(range(x.dim() - len(shape)))
    n = max(1, x.numel() // max(1, math.prod(shape)))
    if dw is not None:
        model.perturb(dw, model.sum_error(dw, (g * normed).square().sum(rows).sqrt(), n))
    if db is not None:
        model.perturb(db, model.sum_error(db, g.square().sum(rows).sqrt(), n))
    return out


def _gelu(model: ErrorModel, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    return model.perturb(out, model.u * out.abs() + model.u_sum * args[0].abs())


def _embedding_backward(model: ErrorModel, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    root = torch.ops.aten.embedding_dense_backward(args[0].square(), *args[1:]).sqrt()
    n = max(1, args[1].numel())
    return model.perturb(out, model.sum_error(out, root, n))


RULES: dict[str, Rule] = {
    **dict.fromkeys(["mm", "bmm", "addmm", "baddbmm", "mv", "dot", "addmv", "vdot"], _product),
    "sum": _sum,
    "mean": _mean,
    "native_layer_norm": _layer_norm,
    "native_layer_norm_backward": _layer_norm_backward,
    "gelu": _gelu,
    **SOFTMAX_RULES,
    "embedding_dense_backward": _embedding_backward,
}
"""The rules, by the name of the operation without the in-place underscore."""
