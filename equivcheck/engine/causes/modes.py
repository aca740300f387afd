"""Causes that are asked for directly: whether dropout is on where it is off in the original, or off where it is on."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from equivcheck.cases.case import Case
from equivcheck.engine.causes.failing import fits
from equivcheck.engine.causes.telling import larger_cases
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem
from equivcheck.pairs.sides import CANDIDATE, REFERENCE, ensure_foreign, running
from equivcheck.report.diagnosis import Cause

__all__ = ["causes_of_modes"]

_IN_EVAL = Cause("dropout-in-eval", "dropout is on in eval mode")
_OFF = Cause("dropout-off-in-training", "dropout is off in training mode")


def causes_of_modes(subject: Pair, failed: Sequence[Case]) -> tuple[Cause, ...]:
    """Whether dropout is switched wrongly, as repeated calls on the smallest failing case with a rate show.

    Args:
        subject: The pair.
        failed: The failing cases, the smallest first.
    """
    for small in failed:
        if not (small.attn_pdrop or small.resid_pdrop):
            continue
        case = next(larger_cases(subject, small, small.dtype), small)  # of one position nothing random may be seen
        problem = subject.problem(case)
        try:
            of_candidate, of_reference = _random(problem, CANDIDATE), _random(problem, REFERENCE)
            if not case.training and of_candidate and not of_reference and _right_without(subject, case):
                return (_IN_EVAL,)
            if case.training and of_reference and not of_candidate and _right_in_eval(subject, problem):
                return (_OFF,)
        except Exception as error:  # no cause of a pair that does not run
            ensure_foreign(error)
        return ()
    return ()


def _module(problem: Problem, side: str) -> nn.Module:
    return problem.candidate if side == CANDIDATE else problem.reference


def _random(problem: Problem, side: str) -> bool:
    """Whether the results of two calls differ that start from other states of the generators."""
    other = replace(problem, case=problem.case.but(seed=problem.case.seed + 1))
    with running(side):
        one, two = (p.run(_module(problem, side), problem.inputs, gradients=False) for p in (problem, other))
    return any(
        value is not None and (again := two[name]) is not None and not torch.equal(value, again)
        for name, value in one.items()
    )


def _right_without(subject: Pair, case: Case) -> bool:
    """Whether the candidate is right where the rates are 0."""
    problem = subject.problem(case.but(attn_pdrop=0.0, resid_pdrop=0.0))
    with running(CANDIDATE):
        results = problem.run(problem.candidate, problem.inputs, gradients=False)
    return fits(problem, results, gradients=False)


def _right_in_eval(subject: Pair, problem: Problem) -> bool:
    """Whether the candidate gives in training mode what the original gives in eval mode."""
    with running(CANDIDATE):
        results = problem.run(problem.candidate, problem.inputs, gradients=False)
    return fits(subject.problem(problem.case.but(training=False)), results, gradients=False)
