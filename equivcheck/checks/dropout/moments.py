"""The distribution of random results, for candidates whose masks cannot be read off.

One sequence is repeated along the batch, so that one forward and backward pass has thousands of independent masks.
Means and covariances of outputs and input gradients are compared with the original's. They show the rate, the scale,
the place of a dropout, masks shared over heads, queries, batch or calls, and another mask or factor in the backward
pass.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.errors import Mismatch
from equivcheck.numerics.comparison import FALSE_ALARM
from equivcheck.numerics.dtypes import HALF
from equivcheck.numerics.quantiles import student_quantile
from equivcheck.numerics.roundoff import unit_roundoff
from equivcheck.pairs.backward_pass import backward
from equivcheck.pairs.cache import Memory
from equivcheck.pairs.problem import Problem
from equivcheck.runtime.rng import generator_state, seeded

__all__ = ["compare_moments", "small_sizes"]

_BATCH, _CALLS = 16384, 4  # 65536 masks: a rate of 0.1 that is really 0.09 is some nine standard errors away
_WITHIN, _NEIGHBOURS, _SUCCESSIVE = "within a sample", "between neighbours in the batch", "between successive calls"
_WHAT = "the distribution over masks"
_NEARLY = 0.1  # a smaller correlation between samples of the original counts as none
_ROUNDINGS = 16  # roundings between two right implementations of one mean; a statistic needs no sharper budget


def small_sizes(case: Case) -> dict[str, Any]:
    """The sizes of a case that is small enough for `compare_moments`, as changes of this one."""
    length = min(case.seq_len, 4)
    return {
        "batch_size": 1,
        "seq_len": length,
        "block_size": length + case.block_size - case.seq_len,
        "n_head": min(case.n_head, 3),
        "head_size": min(case.head_size, 3),
        "layout": "contiguous",
    }


def compare_moments(problem: Problem, reference: nn.Module, candidate: nn.Module) -> CaseResult:
    """Compare the joint distribution of outputs and input gradients with the original's.

    Args:
        problem: The case made real, in the sizes of `small_sizes`.
        reference: An original.
        candidate: The candidate.

    Returns:
        The worst ratio of a deviation to the deviation that chance allows; a note if both were compared in float32.

    Raises:
        Mismatch: A ratio is above 1.
    """
    try:
        return CaseResult(_compare(problem, reference, candidate), _WHAT)
    except Mismatch:
        # In half precision on CUDA torch 2.11 draws half of a mask again in its next call. So the two dropouts of an
        # attention depend on each other, in one way if it calls F.dropout twice, and in another beside a kernel.
        if problem.case.dtype not in HALF or max(_of_torch(problem).values()) <= _NEARLY:
            raise
        note = f"judged in float32: torch's own masks of {problem.case.dtype} depend on each other on this device"
        return CaseResult(_compare_in_float32(problem, reference, candidate), _WHAT, (note,))


def _compare_in_float32(problem: Problem, reference: nn.Module, candidate: nn.Module) -> float:
    case = problem.case.but(dtype="float32")
    wide = replace(
        problem,
        case=case,
        inputs=tuple(x.float() if x.is_floating_point() else x for x in problem.inputs),
        upstream={name: value.float() for name, value in problem.upstream.items()},
        memory=Memory(),
    )
    try:
        return _compare(wide, reference.float(), candidate.float())
    finally:
        for module in (reference, candidate):
            module.to(problem.case.torch_dtype)  # half to float32 and back changes nothing


def _compare(problem: Problem, reference: nn.Module, candidate: nn.Module) -> float:
    reference_moments = _moments(problem, reference, batch=_BATCH, calls=_CALLS, gradients=True)
    candidate_moments = candidate_run(
        problem,
        lambda _: _moments(problem, candidate, batch=_BATCH, calls=_CALLS, gradients=True),
        reference=lambda: reference_moments,
    )
    if not _is_still(problem, reference_moments):
        return _same(problem, reference_moments, candidate_moments)
    # nothing is random: then the budget says how far rounding may move a mean, since results that cancel move further
    alone = replace(problem, memory=Memory())  # its memory would keep the truth of another module
    candidate_results = candidate_run(
        problem,
        lambda _: problem.run(candidate, problem.inputs, gradients=True),
        reference=lambda: problem.run(reference, problem.inputs, gradients=True),
    )
    truth = alone.truth(gradients=True)
    result = compare_all(
        alone,
        truth,
        candidate_results,
        lambda: problem.run(reference, problem.inputs, gradients=True),
        tuple(truth.values),
    )
    return max(result.ratio or 0.0, _same(problem, reference_moments, candidate_moments))


@dataclass(frozen=True)
class _Moments:
    """Means, and second moments within a sample, between neighbours in the batch, and between successive calls."""

    count: int
    mean: Tensor  # (M,)
    variance: Tensor  # (M,)
    products: dict[str, Tensor]  # (M, M) each
    errors: dict[str, Tensor]  # squared standard errors of the products
    repeats: bool  # whether the second call gave the first one's results
    drawn: bool  # whether numbers were drawn from the generator


def _moments(problem: Problem, module: nn.Module, *, batch: int, calls: int, gradients: bool) -> _Moments:
    case = problem.case
    inputs = [x[:1].expand(batch, *x.shape[1:]).contiguous() for x in problem.inputs]
    flowing = {n: g[:1].expand(batch, *g.shape[1:]).contiguous() for n, g in problem.upstream.items() if g.dim() > 1}
    samples = []
    with seeded(case.seed, problem.device):
        before = generator_state(problem.device)
        for _ in range(calls):
            leaves = [x.detach().requires_grad_(gradients) if x.is_floating_point() else x for x in inputs]
            with torch.set_grad_enabled(gradients):
                out = problem.outputs(module, leaves)
            value = out.get("output", out.get("logits"))
            assert value is not None
            parts = [value.detach()]
            if gradients and flowing and value.requires_grad:
                floats = [x for x in leaves if x.is_floating_point()]
                backward([(value, next(iter(flowing.values())))], module)
                parts += [torch.zeros_like(x) if x.grad is None else x.grad for x in floats]
            samples.append(torch.cat([p.reshape(batch, -1).double() for p in parts], dim=1))  # (batch, M)
        drawn = not torch.equal(before, generator_state(problem.device))
    z = torch.stack(samples)  # (calls, batch, M)
    mean = z.mean((0, 1))  # (M,)
    d = z - mean
    pairs = {_WITHIN: d, _NEIGHBOURS: d.roll(1, 1)}
    if calls > 1:
        pairs[_SUCCESSIVE] = d.roll(1, 0)
    count = batch * calls
    a = d.reshape(count, -1)
    products, errors = {}, {}
    for name, other in pairs.items():
        b = other.reshape(count, -1)
        products[name] = a.T @ b / count
        errors[name] = ((a * a).T @ (b * b) / count - products[name].square()).clamp_min(0) / count
    repeats = calls > 1 and torch.equal(z[0], z[1])
    return _Moments(count, mean, a.square().mean(0), products, errors, repeats, drawn)


def _is_still(problem: Problem, moments: _Moments) -> bool:
    """Whether results are the same in each sample and call, up to rounding."""
    size = float(moments.mean.abs().max())
    return not float(moments.variance.max().sqrt()) > _ROUNDINGS * unit_roundoff(problem.case.torch_dtype) * size


def _same(problem: Problem, reference: _Moments, candidate: _Moments) -> float:
    """The worst ratio of a deviation to the deviation that chance allows.

    Raises:
        Mismatch: A ratio is above 1.
    """
    still = _is_still(problem, reference)
    rounding = (_ROUNDINGS * 4 if still else _ROUNDINGS) * unit_roundoff(problem.case.torch_dtype)
    if candidate.drawn and not reference.drawn and still:
        raise Mismatch("the generator was drawn from, and the original draws nothing here", where="generator")
    if not bool(torch.isfinite(reference.mean).all()):
        return 0.0
    if not bool(torch.isfinite(candidate.mean).all()):
        raise Mismatch("with dropout on, the results are not finite, and the original's are", where="finiteness")
    if not still and _is_still(problem, candidate):
        rates = f"attn_pdrop={problem.case.attn_pdrop:g}, resid_pdrop={problem.case.resid_pdrop:g}"
        raise Mismatch(
            f"the candidate drops nothing at {rates}: "
            "each sample and call has the same result, and the original's vary",
            where="what is dropped",
        )
    if candidate.repeats and not reference.repeats:
        raise Mismatch("every call draws the same dropout mask; the original's differ from call to call", where="calls")
    entries = reference.mean.numel() * (1 + 3 * reference.mean.numel())
    quantile = student_quantile(FALSE_ALARM / entries, math.inf)
    size = reference.mean.abs().max() + reference.variance.max().sqrt()
    allowed = quantile * ((reference.variance + candidate.variance) / reference.count).sqrt() + rounding * size
    worst = 0.0 if still else _judge("the mean", reference.mean, candidate.mean, allowed, problem)
    spread = reference.variance.sqrt()
    dependent = {} if still or reference.repeats else _of_torch(problem)
    for name, reference_product in reference.products.items():
        chance = quantile * (reference.errors[name] + candidate.errors[name]).sqrt()
        allowed = chance + rounding * size * (spread.unsqueeze(0) + spread.unsqueeze(1)) + rounding**2 * size**2
        candidate_product = candidate.products[name]
        if name != _WITHIN:
            # Two samples or calls should be independent. A candidate with independent ones is right, even if the
            # original's are slightly dependent, or strongly dependent where torch's are, too (2.11 on CUDA: half of a
            # half-precision mask comes again in the next call). Otherwise an original shares its masks on purpose.
            nearly = math.inf if dependent.get(name, 0.0) > _NEARLY else _NEARLY
            alike = reference_product.abs() <= nearly * spread.unsqueeze(0) * spread.unsqueeze(1)
            reference_product = torch.where(
                alike & (candidate_product.abs() <= allowed), candidate_product, reference_product
            )
        worst = max(worst, _judge(f"the covariance {name}", reference_product, candidate_product, allowed, problem))
    return worst


def _of_torch(problem: Problem) -> dict[str, float]:
    """The greatest correlation of masks that torch draws here, between neighbours in the batch and successive calls."""
    c, worst = problem.case, dict.fromkeys((_NEIGHBOURS, _SUCCESSIVE), 0.0)
    with seeded(c.seed, problem.device):
        for shape in ((_BATCH, c.n_head, c.seq_len, c.seq_len), (_BATCH, c.seq_len, c.n_embd)):
            ones = torch.ones(shape, dtype=c.torch_dtype, device=problem.device)
            signs = torch.stack([F.dropout(ones, 0.5) != 0 for _ in range(_CALLS)]).double() * 2 - 1
            signs = signs.flatten(2)  # (calls, B, places)
            for name, dim in ((_NEIGHBOURS, 1), (_SUCCESSIVE, 0)):
                # of each place with each: a mask that comes again may come in other places
                correlations = torch.einsum("cbi,cbj->ij", signs, signs.roll(1, dim)) / (_CALLS * _BATCH)
                worst[name] = max(worst[name], float(correlations.abs().max()))
    return worst


def _judge(what: str, reference: Tensor, candidate: Tensor, allowed: Tensor, problem: Problem) -> float:
    """The worst ratio of the difference of two tensors to `allowed`; a Mismatch if it is above 1."""
    off = (reference - candidate).abs()
    ratios = torch.where(off == 0, torch.zeros_like(off), off / allowed)
    worst = float(ratios.max())
    if worst > 1:
        flat = int(ratios.reshape(-1).argmax())
        raise Mismatch(
            f"with dropout on, {what} of outputs and input gradients is not the original's: "
            f"{float(candidate.reshape(-1)[flat]):.6g}, "
            f"and {float(reference.reshape(-1)[flat]):.6g} in the original; chance allows a difference of "
            f"{float(allowed.reshape(-1)[flat]):.3g} ({int((ratios > 1).sum())} of {ratios.numel()} entries beyond)",
            ratio=worst,
            where=what,
        )
    return worst
