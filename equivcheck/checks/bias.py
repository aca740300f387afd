"""Bias: errors have no preferred sign. Rounding toward zero, say, shows in no single error, and in the mean of many."""

import math
from collections import defaultdict

import torch
from torch import nn

from equivcheck.cases import Case
from equivcheck.checks.holding import Held, Pair, candidate_run
from equivcheck.comparison import FALSE_ALARM, Mismatch, student_quantile
from equivcheck.problem import Problem, Results
from equivcheck.roundoff import EXP_ULPS, unit_roundoff

__all__ = ["bias"]

_REPLICAS = 24
_SHARE = 0.25
"""A mean error below this share of a unit roundoff is not called bias: rounding to nearest is itself a little lopsided on
values that are not spread evenly between two powers of two. Rounding toward zero has a mean of some 0.7 of a roundoff."""


def bias(pair: Pair, case: Case) -> Held:
    """Over many problems of one shape, the slope of the error on the true value, and its mean, are zero within chance."""
    found: dict[str, list[float]] = defaultdict(list)
    u = unit_roundoff(case.torch_dtype)
    # exponentials may all err to one side, by as much as the budget allows one of them: float32's are not rounded correctly
    share = EXP_ULPS if case.dtype == "float32" else _SHARE
    for replica in range(_REPLICAS):
        problem = pair.problem(case.but(seed=case.seed + replica))
        values = problem.oracle_values(gradients=True)

        def run(module: nn.Module, problem: Problem = problem) -> Results:
            return problem.run(module, problem.inputs, gradients=True)

        got = candidate_run(problem, run)
        for name, true in values.items():
            mine = got.get(name)
            if mine is None or not bool(mine.isfinite().all()) or mine.shape != true.shape:
                continue
            size = float(true.square().sum())
            if size > 0:
                error = mine.to(true.device, torch.float64) - true
                found[f"slope of the error of {name}"].append(float((error * true).sum()) / size / u)
                found[f"mean error of {name}"].append(float(error.sum()) / float(true.abs().sum()) / u)
    worst, where = 0.0, ""
    quantile = student_quantile(FALSE_ALARM / max(1, len(found)), _REPLICAS - 1)
    for name, sample in found.items():
        if len(sample) < _REPLICAS:
            continue
        mean = sum(sample) / len(sample)
        deviation = math.sqrt(sum((s - mean) ** 2 for s in sample) / (len(sample) - 1))
        allowed = quantile * deviation / math.sqrt(len(sample)) + share
        ratio = abs(mean) / allowed
        if ratio > worst:
            worst, where = ratio, name
        if ratio > 1:
            raise Mismatch(
                f"{name} is {mean:+.3g} unit roundoffs of {case.dtype} over {len(sample)} problems "
                f"(standard deviation {deviation:.2g}): chance and rounding to nearest allow {allowed:.2g}",
                ratio=ratio,
                where=name,
            )
    return Held(worst, where)
