"""Comparison with the original that drops by the candidate's own masks."""

from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from equivcheck.cases.case import Case
from equivcheck.checks.base.check import CaseResult
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.dropout.masks import Masks, inject
from equivcheck.errors import Mismatch, NotOpened
from equivcheck.pairs.cache import Memory
from equivcheck.pairs.problem import Problem, Results

__all__ = ["compare_under_masks", "under_masks"]

_NARROW = tuple(map(frozenset, (("attention",), ("others",), ("attention", "others"))))
_FAR = 2.0**-16  # of the largest value of all: a factor in float32 is off by 2⁻²⁴, in each layer


@dataclass(frozen=True)
class _UnderMasks:
    """Around a run of the original: it drops by masks, some of its dropouts with a factor in float32."""

    masks: Masks
    case: Case
    narrow: frozenset[str] = frozenset()

    def __call__(self, original: nn.Module, device: torch.device) -> Any:
        return inject(self.masks.to(device), original, self.case, narrow=self.narrow)


def under_masks(problem: Problem, masks: Masks) -> Problem:
    """The same problem, with an oracle that drops by `masks`."""
    around = _UnderMasks(masks, problem.case)
    return replace(problem, around_reference=around, memory=Memory(), memory_key="under masks")


def compare_under_masks(problem: Problem, candidate_results: Results) -> CaseResult:
    """Compare a candidate's results with the oracle of a problem with masks (`under_masks`).

    In float64 the factor 1/(1 - p) may be float32's: kernels take a rate as such a number, and a rate is no precise one.

    Args:
        problem: The problem with masks.
        candidate_results: Outputs, and gradients if the run had any.

    Raises:
        Mismatch: The results differ.
        NotOpened: The masks fit no dropout of the original.
    """
    try:
        return _compared(problem, candidate_results)
    except Mismatch:
        around = problem.around_reference
        if (
            problem.case.dtype != "float64"
            or not isinstance(around, _UnderMasks)
            or _is_far(problem, candidate_results)
        ):
            raise
        for narrow in _NARROW:
            other = replace(problem, around_reference=replace(around, narrow=narrow), memory=Memory())
            with suppress(Mismatch):
                result = _compared(other, candidate_results)
                note = f"the factor of dropout is float32's ({' and '.join(sorted(narrow))})"
                return replace(result, notes=(*result.notes, note))
        raise


def _is_far(problem: Problem, candidate_results: Results) -> bool:
    """Whether some result is further from the oracle than factors in float32 explain."""
    truths = {name: true for name, true in problem.truth(gradients=True).values.items() if true.numel()}
    far = _FAR * max(float(true.abs().max()) for true in truths.values())
    for name, true in truths.items():
        value = candidate_results.get(name)
        if value is not None and value.shape == true.shape and not float((value.to(true) - true).abs().max()) <= far:
            return True
    return False


def _compared(problem: Problem, candidate_results: Results) -> CaseResult:
    gradients = any(name.startswith("grad ") for name in candidate_results)

    def run_reference() -> Results:
        reference = problem.make_reference()
        try:
            with problem.within(reference):
                return problem.run(reference, problem.inputs, gradients=gradients)
        except NotOpened:
            return {}  # a kernel; masks were put into the user's oracle

    truth = problem.truth(gradients=True)
    names = (*truth.values, *candidate_results) if gradients else candidate_results
    return compare_all(problem, truth, candidate_results, run_reference, dict.fromkeys(names))
