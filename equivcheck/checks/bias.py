"""Bias: errors have no preferred sign. Rounding toward zero, say, shows in no single error, but in the mean of many.

The same means are taken over every slice: one position, one head, one sample, one row of a weight. A small factor in
one slice is within every budget in half precision, but it errs in the same direction in problem after problem.

A sum in half precision errs in one direction, too: with equal terms it stands still after 1/u of them, for a unit
roundoff u. In bfloat16 so many positions are cheap, so each case also runs a longer one of almost uniform attention.
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
"""A mean error below this share of a unit roundoff is not called bias: rounding to nearest is itself a little lopsided
on values that are not spread evenly between two powers of two. Rounding toward zero has a mean of about 0.7 of one."""

_NOISE = 2.0**-40
"""Share of the largest number of all. A smaller truth is a zero with rounding in float64, such as the gradient of a
key's bias. A candidate that gives zero there, or computes in float64 too, errs by all of it, and has no bias."""

_TIMES_THE_ORIGINAL = 2.0
_LONGEST = 512  # positions: with more, 24 problems take longer than all other checks
_BEYOND = 1.5  # times the number of terms at which a sum stands still: a third of them is lost
_WIDTH = 8


def bias(pair: Pair, case: Case) -> CaseResult:
    """Over many problems of one shape, the slope of the error on the true value, and its mean, are zero within chance.

    The same holds in every slice of a tensor. All roundings of a correct implementation may have one direction there:
    the probabilities of a row may be alike and rounded alike.
    """
    result = _over_problems(pair, case, _SHARE)
    longer = lengthened(case)
    if longer is None:
        return result
    # a softmax may be written as exp(s - logsumexp(s)): a row has about the same logsumexp, ln T, in every problem; its
    # rounding is up to ln T unit roundoffs, and all probabilities of the row err by it
    share = ROUNDINGS + math.log(longer.seq_len)
    with within(f"at T={longer.seq_len}, one head and one sample, for which the case stands as well", plain=True):
        return CaseResult.worst((result, _over_problems(pair, longer, share)))


def lengthened(case: Case) -> Case | None:
    """A case of almost uniform attention, so long that a sum in its dtype stands still; None if that is too long.

    Heads are at least `_WIDTH` wide: the slope of a head of one number scatters far more.
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
        regime="near_initial",  # rows are alike, and so may be all roundings; a sum that stands still errs far more
    )


def _over_problems(pair: Pair, case: Case, share: float) -> CaseResult:
    """Judge the errors of many problems; the mean over a whole tensor may be `share` unit roundoffs.

    Where the original has such a mean itself, twice that is allowed to the candidate: a truth may be no more than the
    rounding of float64, such as the gradient of a norm's weight over a width of one.
    """
    # all exponentials may err to one side, each by its whole budget: float32's are not rounded correctly
    exponentials = dtype_row(case.dtype).exp_ulps
    shares = max(share, exponentials), max(share, float(ROUNDINGS), exponentials)
    of_candidate = _statistics(pair, case, of_reference=False)
    try:
        return _judged(of_candidate, shares, case)
    except Mismatch:
        return _judged(of_candidate, shares, case, _statistics(pair, case, of_reference=True))


_Statistics = tuple[dict[str, Tensor], dict[str, Tensor]]
"""Of whole tensors, (replicas, 1), and of slices, (replicas, slices), by name."""


def _judged(
    statistics: _Statistics, shares: tuple[float, float], case: Case, originals: _Statistics = ({}, {})
) -> CaseResult:
    tests = sum(stacked.shape[1] for part in statistics for stacked in part.values())
    parts = zip(statistics, shares, originals, strict=True)
    return CaseResult.worst([_worst(part, share, tests, case, original) for part, share, original in parts])


def _statistics(pair: Pair, case: Case, *, of_reference: bool) -> _Statistics:
    """Slopes and means of the errors of one side, in unit roundoffs."""
    errors: dict[str, list[Tensor]] = defaultdict(list)  # in unit roundoffs, a tensor per problem
    truths: dict[str, list[Tensor]] = defaultdict(list)
    noise: list[float] = []
    u = unit_roundoff(case.torch_dtype)
    for replica in range(_REPLICAS):
        problem = pair.problem(case.but(seed=case.seed + replica))
        values = problem.oracle_values(gradients=True)

        def run(module: nn.Module, problem: Problem = problem) -> Results:
            return problem.run(module, problem.inputs, gradients=True)

        results = run(problem.reference) if of_reference else candidate_run(problem, run)
        noise.append(_NOISE * max(float(true.abs().max()) for true in values.values() if true.numel()))
        for name, true in values.items():
            value = results.get(name)
            if value is None or value.shape != true.shape or not true.numel() or not bool(value.isfinite().all()):
                continue
            errors[name].append((value.to(true.device, torch.float64) - true) / u)
            truths[name].append(true)
    whole: dict[str, Tensor] = {}
    sliced: dict[str, Tensor] = {}
    for name, samples in errors.items():
        if len(samples) < _REPLICAS:
            continue
        error, true = torch.stack(samples), torch.stack(truths[name])  # (replicas, *shape)
        noise_levels = torch.tensor(noise, dtype=torch.float64, device=true.device).unsqueeze(-1)  # (replicas, 1)
        for what, numerator, denominator, floor in (
            (f"slope of the error of {name}", error * true, true.square(), noise_levels.square()),
            (f"mean error of {name}", error, true.abs(), noise_levels),
        ):
            elements = true[0].numel()
            whole[what] = _ratio(
                numerator.reshape(_REPLICAS, -1).sum(1, True),
                denominator.reshape(_REPLICAS, -1).sum(1, True),
                floor * elements,
            )
            for dim in range(1, true.dim() if true.dim() > 2 else 1):
                others = [d for d in range(1, true.dim()) if d != dim]
                sliced[f"{what} along dimension {dim - 1}"] = _ratio(
                    numerator.sum(others), denominator.sum(others), floor * (elements / true.shape[dim])
                )
    return whole, sliced


def _ratio(numerator: Tensor, denominator: Tensor, noise: Tensor) -> Tensor:
    """numerator / denominator; not a number where the truth is only float64's rounding of a zero."""
    return torch.where(denominator > noise, numerator / denominator, math.nan)


def _worst(
    statistics: dict[str, Tensor], share: float, tests: int, case: Case, originals: dict[str, Tensor]
) -> CaseResult:
    """The mean nearest to the limit of chance and `share` roundoffs; raises Mismatch for a mean beyond its limit."""
    quantile = student_quantile(FALSE_ALARM / max(1, tests), _REPLICAS - 1)
    worst = CaseResult(0.0)
    for name, stacked in statistics.items():  # (replicas, slices)
        judged = stacked.isfinite().all(0)  # a truth of zero has no slope
        mean, deviation = stacked.mean(0), stacked.std(0)
        allowed = quantile * deviation / math.sqrt(_REPLICAS) + share
        if name in originals:
            allowed = torch.maximum(allowed, _TIMES_THE_ORIGINAL * originals[name].mean(0).abs().nan_to_num())
        ratios = torch.where(judged, mean.abs() / allowed, 0.0)
        at = int(ratios.argmax())
        ratio, where = float(ratios[at]), name if len(ratios) == 1 else f"{name}, at {at}"
        if ratio > 1:
            raise Mismatch(
                f"{where} is {float(mean[at]):+.3g} unit roundoffs of {case.dtype} over {_REPLICAS} problems "
                f"(standard deviation {float(deviation[at]):.2g}): "
                f"chance and rounding to nearest allow {float(allowed[at]):.2g}",
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
