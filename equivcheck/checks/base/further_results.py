"""Results besides the first one that an attention returns in a tuple, such as the log-sum-exp of its scores."""

from collections.abc import Callable

import torch

from equivcheck.cases.case import Case
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult
from equivcheck.checks.base.within import within
from equivcheck.errors import UnfitResult
from equivcheck.pairs.forward import taking
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem
from equivcheck.pairs.sides import REFERENCE, foreign
from equivcheck.runtime.rng import seeded

__all__ = ["each_result"]


def each_result(
    pair: Pair, case: Case, compare: Callable[[Problem], CaseResult], *, gradients: bool = False
) -> CaseResult:
    """The comparison of the first result of a case, and of each further one that both sides return.

    Args:
        pair: The pair.
        case: The case.
        compare: The comparison of the problem of one result.
        gradients: Whether it compares gradients, which flow through differentiable results alone.
    """
    first = compare(pair.problem(case))
    further = [_further(pair, case, compare, number, gradients) for number in range(1, pair.further_results + 1)]
    return CaseResult.together((first, *further)) if further else first


def _further(
    pair: Pair, case: Case, compare: Callable[[Problem], CaseResult], number: int, gradients: bool
) -> CaseResult:
    which = f"result {number + 1}"
    if pair.oracle is not None:
        return _not_compared(which, "the oracle is asked for the first one alone")
    try:
        problem = pair.problem(case, number)
    except UnfitResult as why:
        return _not_compared(which, f"in the original, {why}")
    with taking(number):
        value = candidate_run(problem, lambda module: _value(problem, module))
    if value is None:
        return _not_compared(which, "the candidate returns None in its place")
    if gradients and not _is_differentiable(problem):
        return CaseResult(judged=False, applies=False)
    with within(f"{which}: ", separator=""):
        return compare(problem)


def _not_compared(which: str, why: str) -> CaseResult:
    return CaseResult(notes=(f"{which} was not compared: {why}",), judged=False)


def _value(problem: Problem, module: torch.nn.Module) -> object:
    with torch.no_grad(), seeded(problem.case.seed, problem.device):
        return module(*problem.inputs)


def _is_differentiable(problem: Problem) -> bool:
    leaves = [x.detach().requires_grad_() for x in problem.inputs]
    with seeded(problem.case.seed, problem.device), foreign(REFERENCE):
        return problem.outputs(problem.reference, leaves)["output"].requires_grad
