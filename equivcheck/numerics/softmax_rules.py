"""The rounding errors of a softmax, and of a hand-written one: of its differences, exponentials and quotients."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from equivcheck.numerics.error_model import ErrorModel, Rule

__all__ = ["SOFTMAX_RULES"]

_NEGLIGIBLE = 2.0**-64  # a spacing of subnormals up to this moves no gradient: float16 alone has a greater one


def _softmax(model: ErrorModel, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    # p = exp(s - lse): an error of the exponent is a relative error of p, and |s - lse| = |log p|
    logarithm = torch.log(out.clamp_min(torch.finfo(out.dtype).tiny)).abs_()
    recompute_error = _recompute_error(model, args[0])
    # a log-sum-exp that is saved for a backward pass is rounded once for its whole row, and exponentials of
    # arguments that lie close together err alike
    log_sum = torch.logsumexp(args[0], args[1], keepdim=True).abs_()
    shared = model.draw(log_sum)
    # probabilities underflow in every regime, whatever the size of the values
    size = model.u * (1 + logarithm) + recompute_error + model.u_exp
    model.perturb(out, out * size + model.smallest * (out != 0))
    # the exponential of a large error is not linear in it
    growth = torch.nan_to_num(shared * (model.u * (1 + log_sum) + model.u_exp), nan=0.0, posinf=0.0, neginf=0.0)
    if out.shape[args[1]]:
        model.origins.mark_greatest(out, args[0].argmax(args[1], keepdim=True))
    return out.mul_(growth.clamp(-1.0, 1.0).exp_())


def _recompute_error(model: ErrorModel, scores: Tensor) -> Tensor:
    """The relative error of a probability whose score a backward pass computes again: no normalisation removes it."""
    size = model.u * scores.abs()
    if model.summed is not None and model.summed.numel() == size.numel():
        # the latest product is q kᵀ, which is summed a second time
        size = size + size * model.summed.reshape(size.shape) / model.u
    return torch.nan_to_num(size, nan=0.0).clamp_(max=1.0)


def _difference(model: ErrorModel, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A difference; if one number is subtracted from each row of scores, as before an exponential, it is recorded."""
    if not (isinstance(out, Tensor) and out.dtype is torch.float64):
        return out
    model.origins.follow(args, out)
    scores, row = args[0], args[1]
    model.perturb(out, model.relative(out))
    latest = model.summed is not None and model.summed.numel() == out.numel()
    if latest and isinstance(row, Tensor) and out.dim() and row.shape == (*out.shape[:-1], 1):
        model.origins.mark_recomputed(out, _recompute_error(model, scores), less=row)
    return out


def _unnormalised(model: ErrorModel, g: Tensor, p: Tensor, dim: int) -> Tensor:
    """The error of underflow in the backward pass of a hand-written softmax, exp(s - m) / sum.

    That backward pass divides by the sum twice: in long rows p / sum and g / sum are multiples of the spacing of
    subnormals. The gradient of the sum, -(g * p / sum) summed, has that error for its whole row; exp(s - m), at most 1,
    brings it into every score.
    """
    visible = p != 0
    visible_g = g * visible
    size = visible_g.square().sum(dim, keepdim=True).sqrt() + visible_g.sum(dim, keepdim=True).abs()
    size = model.smallest * (size + visible.sum(dim, keepdim=True).sqrt())
    # a perturbed probability may have any sign, and no row is all zeros but for rounding
    largest = p.abs().amax(dim, keepdim=True).clamp_min(torch.finfo(p.dtype).tiny)
    return p / largest * (size * model.draw(size))


def _softmax_backward(model: ErrorModel, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    g, p, dim = args[0], args[1], args[2]
    return _scores_gradient(model, out, g, p, p * g, dim, model.origins.terms(g), model.origins.greatest(p))


def _scores_gradient(
    model: ErrorModel,
    out: Tensor,
    g: Tensor,
    p: Tensor,
    terms: Tensor,
    dim: int,
    flash: Tensor | None,
    greatest: Tensor | None,
) -> Tensor:
    """Perturb the gradient of scores, p * (g - delta), by the errors of every usual way to compute it.

    Args:
        model: The error model.
        out: The gradient of the scores.
        g: The gradient of the probabilities.
        p: The probabilities.
        terms: p * g, whose sum along `dim` is delta.
        dim: The dimension of the softmax.
        flash: rowsum((dO * O)**2), if g is the gradient of an attention's probabilities.
        greatest: The index of the greatest score of each row, if it is known.
    """
    delta = terms.sum(dim, keepdim=True)
    root = (terms * terms).sum(dim, keepdim=True).sqrt_()
    shared = model.sum_error(delta, root, g.shape[dim]) + model.u * root
    if flash is not None and flash.numel() == delta.numel() and dim in (-1, g.dim() - 1):
        # a flash backward pass takes rowsum(dO * O) from a summed and rounded O: one error for a whole row
        size = model.u + model.u_sum * model.steps(g.shape[dim])
        shared = shared + size * flash.reshape(delta.shape).sqrt()
    errors = p * (shared * model.draw(delta))
    if model.smallest > _NEGLIGIBLE:
        errors += _unnormalised(model, g, p, dim)
    # parts of a row that are normalised separately and then merged have separate sums, as large as any of their terms:
    # these cancel where dropout leaves little of the sum of the whole row
    largest = (g * (p != 0)).abs().amax(dim, keepdim=True)
    size_of_terms = model.u * out.abs() + p * (model.u * (largest + delta.abs()))
    if greatest is not None:
        # a hand-written softmax subtracts the greatest score from all others: the gradients of a row sum to zero,
        # and the rounding error of that sum goes to the greatest score
        row_error = errors.sum(dim, keepdim=True).abs() + size_of_terms.square().sum(dim, keepdim=True).sqrt_()
        out.scatter_add_(dim, greatest, row_error * model.draw(row_error))
    out.sub_(errors)
    return model.perturb(out, size_of_terms)


def _normalised(model: ErrorModel, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """A product or quotient; if it normalises a gradient row by row, it is the backward pass of a hand-written softmax.

    A flash backward pass in its place takes rowsum(dO * O) from a summed and rounded O, as in `_softmax_backward`.
    """
    if not (isinstance(out, Tensor) and out.dtype is torch.float64):
        return out
    model.origins.follow(args, out)
    model.perturb(out, model.relative(out))
    tensors = [a for a in args[:2] if isinstance(a, Tensor)]
    if len(tensors) < 2:
        return out
    for exponentials, other in (tensors, tensors[::-1]):
        recompute_error = model.origins.recompute_error(exponentials)
        if recompute_error is not None and other.shape in (exponentials.shape, (*exponentials.shape[:-1], 1)):
            # divided by their sum they are probabilities, and times a gradient they are the scores' gradient: no
            # normalisation removes the error of a recomputed score, as in `_softmax`
            model.perturb(out, out.abs() * recompute_error.reshape(out.shape))
            return out
    for gradient, rows in (tensors, tensors[::-1]):
        flash = model.origins.terms(gradient)
        width = gradient.shape[-1] if gradient.dim() else 1
        if flash is None or rows.shape != (*gradient.shape[:-1], 1) or flash.numel() * width != gradient.numel():
            continue
        size = (model.u + model.u_sum * model.steps(width)) * flash.reshape(rows.shape).sqrt()
        # one error for a whole row, as large as the row's factor on either side
        share = (out.abs().sum(-1, keepdim=True) / gradient.abs().sum(-1, keepdim=True)).nan_to_num(0.0, posinf=0.0)
        out.add_(size * share * model.draw(size))
        break
    return out


def _log_softmax(model: ErrorModel, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    size = model.u * out.abs() + model.u_sum * args[0].abs()
    model.perturb(out, size.masked_fill_(out.isinf(), 0.0))  # a score of minus infinity has no error
    model.origins.mark_recomputed(out, _recompute_error(model, args[0]), probable=True)
    if out.shape[args[1]]:
        model.origins.mark_greatest(out, args[0].argmax(args[1], keepdim=True))
    return out


def _log_softmax_backward(model: ErrorModel, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    g, log_p, dim = args[0], args[1], args[2]
    flash = model.origins.terms(g)
    if flash is not None:
        # its exponentials are an attention's probabilities: g is their gradient times themselves
        p = log_p.exp()
        # a probability that underflows says nothing of its gradient
        of_probabilities = torch.where(p > model.smallest, g / p, 0.0)
        recompute_error = model.origins.recompute_error(log_p)
        if recompute_error is not None:
            # the scores err as in `_softmax`, whose backward pass takes probabilities with that error
            moved = p * recompute_error.reshape(p.shape) * model.draw(p)
            moved_delta = (moved * of_probabilities).sum(dim, keepdim=True)
            delta = g.sum(dim, keepdim=True)
            out.add_(moved * (of_probabilities - delta) - (p + moved) * moved_delta)
        return _scores_gradient(model, out, of_probabilities, p, g, dim, flash, model.origins.greatest(log_p))
    size = model.u * (out.abs() + g.abs() + log_p.exp() * g.sum(dim, keepdim=True).abs())
    return model.perturb(out, size)


def _logsumexp(model: ErrorModel, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    model.perturb(out, (model.u * (1 + out.abs()) + model.u_exp).masked_fill_(out.isinf(), 0.0))
    model.origins.mark_normaliser(out)
    return out


def _exp(model: ErrorModel, out: Tensor, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Tensor:
    recompute_error = model.origins.recompute_error(args[0])
    model.perturb(out, (model.u + model.u_exp) * out.abs())
    if recompute_error is not None and model.origins.is_probable(args[0]):
        # probabilities underflow in every regime, as in `_softmax`
        return model.perturb(out, out.abs() * recompute_error + model.smallest * (out != 0))
    if recompute_error is not None:
        model.origins.mark_recomputed(out, recompute_error)
    return out


SOFTMAX_RULES: dict[str, Rule] = {
    "_softmax": _softmax,
    "_safe_softmax": _softmax,
    "_softmax_backward_data": _softmax_backward,
    "_log_softmax": _log_softmax,
    "_log_softmax_backward_data": _log_softmax_backward,
    "logsumexp": _logsumexp,
    **dict.fromkeys(["exp", "exp2"], _exp),
    **dict.fromkeys(["sub", "subtract"], _difference),
    **dict.fromkeys(["mul", "div"], _normalised),
}
"""The rules, by the name of the operation without the in-place underscore."""
