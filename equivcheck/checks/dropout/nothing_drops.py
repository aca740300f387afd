"""Modules of which no submodule drops: they are compared exactly, though no masks can be read off."""

from dataclasses import replace
from functools import partial

import torch
from torch import nn

from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.pairs.cache import Memory
from equivcheck.pairs.problem import Problem, Results

__all__ = ["compare_where_nothing_drops"]


def compare_where_nothing_drops(problem: Problem, reference: nn.Module, candidate: nn.Module) -> CaseResult:
    """Compare results, with gradients and without, where every submodule of the original is in eval mode.

    Args:
        problem: The case made real; weights, modes and rates are those of the originals that it makes.
        reference: Such an original.
        candidate: The candidate after the same steps.

    Returns:
        The comparison; of no comparison where the original is in train mode, or random all the same.

    Raises:
        Mismatch: The results differ.
    """
    if any(module.training for module in reference.modules()) or not _repeats(problem, reference):
        return CaseResult()
    stepped = replace(problem, memory=Memory(), memory_key="after steps")
    truth = stepped.truth(gradients=True)
    results = []
    for gradients in (True, False):
        original = partial(_of_original, stepped, gradients)
        of_candidate = candidate_run(stepped, partial(_of_candidate, stepped, candidate, gradients), reference=original)
        results.append(compare_all(stepped, truth, of_candidate, original, tuple(of_candidate)))
    return CaseResult.worst(results)


def _of_original(problem: Problem, gradients: bool) -> Results:
    return problem.run(problem.make_reference(), problem.inputs, gradients=gradients)


def _of_candidate(problem: Problem, candidate: nn.Module, gradients: bool, _: nn.Module) -> Results:
    return problem.run(candidate, problem.inputs, gradients=gradients)


def _repeats(problem: Problem, reference: nn.Module) -> bool:
    """Whether a module gives the same outputs under another seed."""
    one, other = (
        replace(problem, case=problem.case.but(seed=seed)).run(reference, problem.inputs, gradients=False)
        for seed in (problem.case.seed, problem.case.seed + 1)
    )
    return all(
        value is not None and (again := other[name]) is not None and torch.equal(value, again)
        for name, value in one.items()
    )
