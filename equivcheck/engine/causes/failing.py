"""A failing case, what both sides give on it, and the original with one reading changed."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from equivcheck.cases.case import Case
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.engine.causes.carrier import AS_IT_IS, Carrier, Edit
from equivcheck.engine.causes.edited import Edited
from equivcheck.engine.causes.watched import Watched
from equivcheck.errors import Mismatch
from equivcheck.pairs.cache import Memory
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results
from equivcheck.pairs.sides import CANDIDATE, REFERENCE, ensure_foreign, running

__all__ = ["Failing", "failing_case", "fits"]

_SAME = 1e-9  # of the largest value, in float64
_FAR = 1000.0  # times the original's rounding: what differs by more is different, without a budget


@dataclass
class Failing:
    """A failing case, and what both sides give on it."""

    problem: Problem
    carrier: Carrier
    oracle: Mapping[str, Tensor]
    results: Results
    rounding: Mapping[str, float]
    gradients: bool

    @property
    def main(self) -> str:
        return "output" if "output" in self.oracle else "logits"

    def edited(self, edit: Edit) -> Problem:
        return _edited(self.problem, self.carrier, edit)

    def error(self, edit: Edit, *, gradients: bool = False) -> float:
        """How far the candidate's results are from those of the changed original, in units of the original's rounding.

        The greatest of the roots of the mean squares, of the output alone or of all results.
        """
        values = self.edited(edit).oracle_values(gradients=gradients)
        names = values if gradients else (self.main,)
        return max(self._error_of(name, values[name]) for name in names)

    def _error_of(self, name: str, value: Tensor) -> float:
        result = self.results.get(name)
        if result is None or result.shape != value.shape:
            return 0.0  # left to the comparison within budgets
        return _distance(result, value) / self.rounding[name]

    @property
    def obvious(self) -> bool:
        """Whether a result is so far off that no budget is needed."""
        return any(self._error_of(name, value) > _FAR for name, value in self.oracle.items())


def _distance(one: Tensor, other: Tensor) -> float:
    difference = one.to(other) - other
    return float(difference.square().mean().sqrt())


def _edited(problem: Problem, carrier: Carrier, edit: Edit) -> Problem:
    return replace(
        problem, around_reference=lambda original, device: Edited(carrier, edit), memory=Memory(), memory_key="edited"
    )


def failing_case(subject: Pair, case: Case, gradients: bool) -> Failing | None:
    """What both sides give on a case; None if it does not fail, or no attention is seen in the original."""
    problem = subject.problem(case)
    watched = Watched()
    try:
        oracle = replace(problem, around_reference=lambda original, device: watched).oracle_values(gradients=gradients)
    except Exception as error:
        ensure_foreign(error)
        return None
    carrier = watched.carrier
    if not carrier:
        return None
    try:
        with running(CANDIDATE):
            results = problem.run(problem.candidate, problem.inputs, gradients=gradients)
        with running(REFERENCE):
            plain = problem.run(problem.reference, problem.inputs, gradients=gradients)
        rounding = {name: _rounding(plain.get(name), value) for name, value in oracle.items()}
        failing = Failing(problem, carrier, oracle, _with_zeros(results, oracle), rounding, gradients)
        again = failing.edited(AS_IT_IS).oracle_values(gradients=False)[failing.main]
        scale = float(oracle[failing.main].abs().max())
        if not _distance(again, oracle[failing.main]) <= _SAME * scale:
            return None
        if not failing.obvious and fits(problem, results, gradients=gradients):
            return None
    except Exception as error:  # no cause of a candidate that does not run
        ensure_foreign(error)
        return None
    return failing


def _with_zeros(results: Results, oracle: Mapping[str, Tensor]) -> Results:
    """The results, with zeros where a gradient is lost altogether: a changed original has a gradient of zero there."""
    some = next(value for value in results.values() if value is not None)
    lost = {n: value.new_zeros(value.shape).to(some) for n, value in oracle.items() if results.get(n) is None}
    return {**results, **lost}


def _rounding(value: Tensor | None, oracle: Tensor) -> float:
    """The original's error, at least a few units of float64."""
    error = 0.0 if value is None or value.shape != oracle.shape else _distance(value, oracle)
    return max(error, 1e-15 * float(oracle.abs().max()), 1e-300)


def fits(problem: Problem, results: Results, *, gradients: bool) -> bool:
    """Whether the candidate's results are within the budget of a problem."""

    def run_reference() -> Results:
        with problem.within(problem.reference):
            return problem.run(problem.reference, problem.inputs, gradients=gradients)

    try:
        truth = problem.truth(gradients=gradients)
        compare_all(problem, truth, results, run_reference, truth.values)
    except Mismatch:
        return False
    return True
