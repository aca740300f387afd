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

from equivcheck.cases.case import Case
from equivcheck.cases.strategies import CaseSpace
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.spaces import ORDINARY
from equivcheck.checks.base.within import within
from equivcheck.errors import Mismatch
from equivcheck.numerics.comparison import FALSE_ALARM
from equivcheck.numerics.dtypes import dtype_row
from equivcheck.numerics.quantiles import student_quantile
from equivcheck.numerics.roundoff import ROUNDINGS, unit_roundoff
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results

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


def bias(pair: Pair, case: Case) -> CaseResult:
    """Over many problems of one shape, the slope of the error on the true value, and its mean, are zero within chance.

    So are both in every slice of a tensor: there all roundings that a right implementation may commit may have one direction,
    as where probabilities of a row are alike and rounded alike.
    """
    held = _over_problems(pair, case, _SHARE)
    longer = lengthened(case)
    if longer is None:
        return held
    with within(f"at T={longer.seq_len}, one head and one sample, for which the case stands as well", plain=True):
        return CaseResult.worst((held, _over_problems(pair, longer, float(ROUNDINGS))))


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


def _over_problems(pair: Pair, case: Case, share: float) -> CaseResult:
    """Whole tensors are allowed a mean of `share` roundoffs."""
    errors: dict[str, list[Tensor]] = defaultdict(list)  # in unit roundoffs, a tensor per problem
    truths: dict[str, list[Tensor]] = defaultdict(list)
    noise: list[float] = []
    u = unit_roundoff(case.torch_dtype)
    for replica in range(_REPLICAS):
        problem = pair.problem(case.but(seed=case.seed + replica))
        values = problem.oracle_values(gradients=True)

        def run(module: nn.Module, problem: Problem = problem) -> Results:
            return problem.run(module, problem.inputs, gradients=True)

        got = candidate_run(problem, run)
        noise.append(_NOISE * max(float(true.abs().max()) for true in values.values() if true.numel()))
        for name, true in values.items():
            mine = got.get(name)
            if mine is None or mine.shape != true.shape or not true.numel() or not bool(mine.isfinite().all()):
                continue
            errors[name].append((mine.to(true.device, torch.float64) - true) / u)
            truths[name].append(true)
    whole, sliced = {}, {}  # (replicas, 1) and (replicas, slices)
    for name, found in errors.items():
        if len(found) < _REPLICAS:
            continue
        error, true = torch.stack(found), torch.stack(truths[name])  # (replicas, *shape)
        least = torch.tensor(noise, dtype=torch.float64, device=true.device).unsqueeze(-1)  # (replicas, 1)
        for what, above, below, below_it in (
            (f"slope of the error of {name}", error * true, true.square(), least.square()),
            (f"mean error of {name}", error, true.abs(), least),
        ):
            each = true[0].numel()
            whole[what] = _share(
                above.reshape(_REPLICAS, -1).sum(1, True), below.reshape(_REPLICAS, -1).sum(1, True), below_it * each
            )
            for dim in range(1, true.dim() if true.dim() > 2 else 1):
                others = [d for d in range(1, true.dim()) if d != dim]
                sliced[f"{what} along dimension {dim - 1}"] = _share(
                    above.sum(others), below.sum(others), below_it * (each / true.shape[dim])
                )
    # exponentials may all err to one side, by as much as the budget allows one of them: float32's are not rounded correctly
    exponentials = dtype_row(case.dtype).exp_ulps
    tests = sum(found.shape[1] for kind in (whole, sliced) for found in kind.values())
    return CaseResult.worst(
        (
            _worst(whole, max(share, exponentials), tests, case),
            _worst(sliced, max(float(ROUNDINGS), exponentials), tests, case),
        )
    )


def _share(above: Tensor, below: Tensor, noise: Tensor) -> Tensor:
    """above / below; not a number where the truth itself is no more than what float64 leaves of a zero."""
    return torch.where(below > noise, above / below, math.nan)


def _worst(found: dict[str, Tensor], share: float, tests: int, case: Case) -> CaseResult:
    """The means nearest to what chance and `share` roundoffs allow; a Mismatch where one is beyond."""
    quantile = student_quantile(FALSE_ALARM / max(1, tests), _REPLICAS - 1)
    worst = CaseResult(0.0)
    for name, stacked in found.items():  # (replicas, slices)
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
            worst = CaseResult(ratio, where)
    return worst


_GENERIC = CaseSpace(
    regimes=ORDINARY, layouts=("contiguous",), max_seq_len=64, max_batch_size=2, max_heads=3, max_head_size=32
)

CHECKS = (Check.of("bias", bias, _GENERIC),)
