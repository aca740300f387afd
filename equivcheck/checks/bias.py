"""Bias: errors have no preferred sign. Rounding toward zero, say, shows in no single error, and in the mean of many.

The same means are taken of every slice: of one position, one head, one sample, one row of a weight. A small factor in one of
them is within every budget in half precision, and lies in the same direction in problem after problem.

So does what a sum loses that is kept in half precision: of equal terms it stands still at 1/u of them. Where that is a length that
takes no time, in bfloat16, each case stands for a longer one of almost uniform attention beside itself.
"""

import math
from collections import defaultdict

import torch
from torch import Tensor, nn

from equivcheck.cases import Case
from equivcheck.checks.holding import Held, Pair, candidate_run
from equivcheck.comparison import FALSE_ALARM, Mismatch, student_quantile
from equivcheck.problem import Problem, Results
from equivcheck.roundoff import EXP_ULPS, ROUNDINGS, unit_roundoff

__all__ = ["bias", "lengthened"]

_REPLICAS = 24
_SHARE = 0.25
"""A mean error below this share of a unit roundoff is not called bias: rounding to nearest is itself a little lopsided on
values that are not spread evenly between two powers of two. Rounding toward zero has a mean of some 0.7 of a roundoff."""

_NOISE = 2.0**-40
"""Of the largest number of all: a truth below is what rounding in float64 has left of a zero, as of the gradient of a key's
bias. The error of a candidate that gives a zero there, or computes in float64 too, is all of it, and no bias."""

_LONGEST = 512  # positions: beyond, 24 problems take longer than all other checks
_BEYOND = 1.5  # times the number of terms at which a sum stands still: a third of them is lost
_WIDTH = 8


def bias(pair: Pair, case: Case) -> Held:
    """Over many problems of one shape, the slope of the error on the true value, and its mean, are zero within chance.

    So are both in every slice of a tensor: there all roundings that a right implementation may commit may have one direction,
    as where probabilities of a row are alike and rounded alike.
    """
    held = _over_problems(pair, case, _SHARE)
    longer = lengthened(case)
    if longer is None:
        return held
    try:
        return max(held, _over_problems(pair, longer, float(ROUNDINGS)), key=lambda h: h.ratio or 0.0)
    except Mismatch as mismatch:
        told = f"at T={longer.seq_len}, one head and one sample, for which the case stands as well: {mismatch}"
        raise Mismatch(told, ratio=mismatch.ratio, where=mismatch.where) from None


def lengthened(case: Case) -> Case | None:
    """Almost uniform attention over more positions than a sum in the case's dtype has terms for; None where those are too many.

    A head of one number has a slope that scatters far more.
    """
    stands_still = 1 / unit_roundoff(case.torch_dtype)
    length = case.seq_len + int(_BEYOND * stands_still)
    if length > _LONGEST:
        return None
    return case.but(
        batch_size=1,
        n_head=1,
        head_size=max(_WIDTH, case.head_size),
        seq_len=length,
        block_size=length + case.block_size - case.seq_len,
        kv_heads=0,
        regime="near_initial",  # rows are alike: so may be all roundings, and a sum that stands still is far beyond them
    )


def _over_problems(pair: Pair, case: Case, share: float) -> Held:
    """Whole tensors are allowed a mean of `share` roundoffs."""
    whole: dict[str, list[Tensor]] = defaultdict(list)  # of each tensor, (1,) per problem
    sliced: dict[str, list[Tensor]] = defaultdict(list)  # (slices,) per problem
    u = unit_roundoff(case.torch_dtype)
    for replica in range(_REPLICAS):
        problem = pair.problem(case.but(seed=case.seed + replica))
        values = problem.oracle_values(gradients=True)

        def run(module: nn.Module, problem: Problem = problem) -> Results:
            return problem.run(module, problem.inputs, gradients=True)

        got = candidate_run(problem, run)
        least = _NOISE * max(float(true.abs().max()) for true in values.values() if true.numel())
        for name, true in values.items():
            mine = got.get(name)
            if mine is None or not bool(mine.isfinite().all()) or mine.shape != true.shape:
                continue
            error = (mine.to(true.device, torch.float64) - true) / u
            sums = {
                f"slope of the error of {name}": (error * true, true.square(), least * least),
                f"mean error of {name}": (error, true.abs(), least),
            }
            for what, (above, below, noise) in sums.items():
                whole[what].append(_share(above.sum(), below.sum(), noise * true.numel()).reshape(1))
                for dim in range(true.dim() if true.dim() > 1 else 0):
                    others = [d for d in range(true.dim()) if d != dim]
                    many = true.numel() / true.shape[dim]
                    sliced[f"{what} along dimension {dim}"].append(
                        _share(above.sum(others), below.sum(others), noise * many)
                    )
    # exponentials may all err to one side, by as much as the budget allows one of them: float32's are not rounded correctly
    exponentials = EXP_ULPS if case.dtype == "float32" else 0.0
    tests = sum(found[0].numel() for kind in (whole, sliced) for found in kind.values())
    worst = max(
        _worst(whole, max(share, exponentials), tests, case),
        _worst(sliced, max(float(ROUNDINGS), exponentials), tests, case),
        key=lambda held: held.ratio or 0.0,
    )
    return worst


def _share(above: Tensor, below: Tensor, noise: float) -> Tensor:
    """above / below; not a number where the truth itself is no more than what float64 leaves of a zero."""
    return torch.where(below > noise, above / below, math.nan)


def _worst(found: dict[str, list[Tensor]], share: float, tests: int, case: Case) -> Held:
    """The means nearest to what chance and `share` roundoffs allow; a Mismatch where one is beyond."""
    quantile = student_quantile(FALSE_ALARM / max(1, tests), _REPLICAS - 1)
    worst = Held(0.0)
    for name, sample in found.items():
        if len(sample) < _REPLICAS:
            continue
        stacked = torch.stack(sample)  # (replicas, slices)
        judged = stacked.isfinite().all(0)  # a truth of zero has no slope
        mean, deviation = stacked.mean(0), stacked.std(0)
        allowed = quantile * deviation / math.sqrt(_REPLICAS) + share
        ratios = torch.where(judged, mean.abs() / allowed, 0.0)
        at = int(ratios.argmax())
        ratio, where = float(ratios[at]), name if len(ratios) == 1 else f"{name}, at {at}"
        if ratio > 1:
            raise Mismatch(
                f"{where} is {float(mean[at]):+.3g} unit roundoffs of {case.dtype} over {_REPLICAS} problems "
                f"(standard deviation {float(deviation[at]):.2g}): chance and rounding to nearest allow {float(allowed[at]):.2g}",
                ratio=ratio,
                where=where,
            )
        if ratio > (worst.ratio or 0.0):
            worst = Held(ratio, where)
    return worst
