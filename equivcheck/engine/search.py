"""One check's search: it draws cases, runs them in order, and makes a failing one small."""

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from hypothesis import reject
from hypothesis.errors import Unsatisfiable

from equivcheck.cases.case import Case
from equivcheck.cases.strategies import simpler
from equivcheck.checks import CaseResult, Check
from equivcheck.checks.base.candidate_run import first_line, raised
from equivcheck.engine.case_outcomes import Recorded, origin_of, outcome_of
from equivcheck.engine.drawing import draw_cases
from equivcheck.errors import DeviceLost, Mismatch, ReferenceRaises, ToolError, UsageError
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.sides import REFERENCE, ensure_foreign, failure, raised_by
from equivcheck.report.outcomes import REFUSES, CaseOutcome
from equivcheck.runtime import clock
from equivcheck.runtime.device import ensure_device_alive
from equivcheck.runtime.global_state import preserved

__all__ = ["CLEAR", "Search", "seed_for"]

CLEAR = 4.0
"""From so many budgets on a failure is clear: other values and a smaller case would show it, too."""
_MOST_ASKED = 16.0  # budgets: no smaller case of a clear failure is asked for more


class _Ended(BaseException):
    """Ends the drawing of cases at once; it is no Exception, which Hypothesis would shrink as a failure."""


class _Failure(Exception):
    """A case fails; failures of each origin have a class of their own, so that none is shrunk into another."""


@dataclass
class Search:
    """One check's cases, in the order in which they were run, and their outcomes.

    Attributes:
        check: The check.
        subject: The pair.
        planned: How many cases the check has in all of its classes.
        shrink_calls: How many more cases are run to make a failing one small, and as many again beyond its class.
        until: The time of `time.monotonic` at which the search ends.
        most: The number of cases after which it ends; the first ones of a class stay the same.
        on_progress: A function that is given the number of cases that are done.
        known: Case id -> its outcome in an earlier process: such a case is not run again.
        began: A function that is given each case before it is run.
        ended: A function that is given the outcome of each case.
        dtypes: The dtypes that a counterexample may have: they are asked for, and the candidate takes them.
        passed: The result of each case that did not fail, whether it was judged or not.
        failed: The difference in each case that failed.
        minimal: The smallest failing case; if the first failure is clear, the smallest clear one.
        stopped: Whether time ran out before all cases were drawn.
        seconds: The time that the search took.
    """

    check: Check
    subject: Pair
    planned: int
    shrink_calls: float
    until: float
    on_progress: Callable[[int], None] = lambda _: None
    known: Mapping[str, CaseOutcome] = field(default_factory=dict)
    began: Callable[[Case], None] = lambda _: None
    ended: Callable[[CaseOutcome], None] = lambda _: None
    dtypes: Sequence[str] = DTYPES
    passed: dict[Case, CaseResult] = field(default_factory=dict)
    failed: dict[Case, Mismatch] = field(default_factory=dict)
    minimal: Case | None = None
    most: float = math.inf
    stopped: bool = False
    seconds: float = 0.0
    _calls: int = 0
    _error: Exception | None = None  # an error that is no outcome of a case
    _least: float | None = None  # the ratio below which a failing case counts as passing while a failure is made small

    def visit(self, case: Case) -> None:
        """Run the check on a case once; later calls repeat the outcome, so that shrinking runs no case twice.

        Raises:
            Mismatch: The case fails.
        """
        if case not in self.failed and case not in self.passed and not self._recall(case):
            if self._spent():
                return
            with clock.in_part(clock.REST):
                self._run(case)
        if case in self.failed:
            if self._is_clear(self.failed[case]):
                self.minimal = case
            raise self.failed[case]

    def _is_clear(self, mismatch: Mismatch) -> bool:
        """Whether a failure may stand for the first one: a clear one is not made small until it reads like rounding.

        The first failure decides once and for all, so that a case means the same to Hypothesis however often it is run.
        """
        ratio = math.inf if math.isnan(mismatch.ratio) else mismatch.ratio
        if self._least is None:
            self._least = min(ratio / 2, _MOST_ASKED) if ratio >= CLEAR else 0.0
        return ratio >= self._least

    def _recall(self, case: Case) -> bool:
        """Take the outcome of a case from an earlier process; False if there is none."""
        outcome = self.known.get(case.id)
        if outcome is None:
            return False
        if self.failed and not outcome.died:
            self._calls += 1  # that process made it small as far as this one does
        if outcome.failed is not None:
            self.failed[case] = Recorded(outcome)
        else:
            self.passed[case] = CaseResult(
                outcome.ratio,
                outcome.where,
                outcome.notes,
                outcome.judged,
                outcome.applies,
                outcome.unsupported,
                outcome.data,
                outcome.reason,
                outcome.outside,
            )
        self.ended(outcome)
        return True

    def _spent(self) -> bool:
        """Whether no further case is run: other cases count as passing then, and shrinking comes to its end."""
        late = time.monotonic() > self.until
        if self.failed:
            if late or self._calls >= self.shrink_calls:
                return True
            self._calls += 1
        elif late:
            self.stopped = True
            raise _Ended
        elif len(self.passed) >= self.most:
            raise _Ended
        return False

    def _run(self, case: Case) -> None:
        self.began(case)
        first = not self.failed
        try:
            # a setting that a candidate switches in one check must not last into the next
            with preserved():
                result = self.check.run(self.subject, case)
        except Mismatch as mismatch:
            self.failed[case] = mismatch
            self.ended(outcome_of(case, mismatch))
            return
        except ReferenceRaises as why:
            result = _not_judged(why, outside=_original_raises(self.subject, case) is not None)
        except (UsageError, KeyboardInterrupt):
            raise
        except ToolError as error:
            # a kernel of the pair may have lost the GPU, and equivcheck's next step was the first to see it
            ensure_device_alive(self.subject.device, f"{self.check.name} was judged on {case.id}")
            raise ToolError(f"{error}, in {self.check.name} on {case.id}") from error
        except Exception as error:
            ensure_device_alive(self.subject.device, f"{self.check.name} was judged on {case.id}", error)
            cause = self._of_reference(case, error)
            if isinstance(cause, Mismatch):
                self.failed[case] = cause
                self.ended(outcome_of(case, cause))
                return
            result = _not_judged(cause, outside=_original_raises(self.subject, case) is not None)
        self.passed[case] = result
        self.ended(outcome_of(case, result))
        if first:
            self.on_progress(len(self.passed))

    def _of_reference(self, case: Case, error: Exception) -> Exception:
        """The exception itself if the original raises, too; a Mismatch if only the candidate does."""
        try:
            ensure_foreign(error)
        except ToolError as mistake:
            raise ToolError(f"{mistake}, in {self.check.name} on {case.id}") from error
        if raised_by(error) == REFERENCE:
            return error
        why = _original_raises(self.subject, case)
        if why is not None:
            return why
        # not more is known: the check may have used the candidate in another way
        return raised(error, "the original runs forward and backward on this case").with_traceback(error.__traceback__)

    def run(self, classes: Sequence[tuple[Any, int]], seed: int, *, only: int | None = None) -> None:
        """Draw the cases of all classes; if one fails, shrink it and leave the other classes.

        Args:
            classes: The classes of cases: a strategy or a tuple of cases, and its number of cases.
            seed: The seed of the first class; each next class has the next seed.
            only: The number of the one class to draw; None for all.
        """
        began = time.monotonic()
        try:
            for number, (strategy, count) in enumerate(classes):
                if only not in (None, number):
                    continue
                self._draw(strategy, count, seed + number)
                # a check may take the error of a dead device for a refusal, or for the original's
                if last := next(reversed(self.passed), None):
                    ensure_device_alive(self.subject.device, f"{self.check.name} was judged on {last.id}")
                if self.minimal is not None:
                    self._polish(self.minimal)
                    return
        finally:
            self.seconds += time.monotonic() - began

    def again(self, case: Case) -> None:
        """Run this one case, and look for no smaller one; it has no outcome if time is out, or if it cannot be run."""
        began = time.monotonic()
        try:
            self.visit(case)
        except DeviceLost:
            raise
        except (Mismatch, _Ended, UsageError, ToolError):
            pass
        self.seconds += time.monotonic() - began

    def _draw(self, strategy: Any, count: int, seed: int) -> None:
        redrawn: set[Case] = set()

        def property_of(case: Case) -> None:
            kind = self._failure_of(case)
            if kind is not None:
                raise kind
            result = self.passed.get(case)
            if result is not None and result.outside and not self.failed and (case in redrawn or len(redrawn) < count):
                redrawn.add(case)
                reject()  # Hypothesis draws another one in the place of a case that the original refuses

        with suppress(_Failure, _Ended, Unsatisfiable), clock.in_part(clock.DRAWING):
            if isinstance(strategy, tuple):
                self._visit_all(strategy)
            else:
                draw_cases(strategy, count, seed, property_of)
        if self._error is not None:
            raise self._error

    def _visit_all(self, cases: Sequence[Case]) -> None:
        """Visit cases that are chosen already, up to the first that fails."""
        for case in cases:
            if self._failure_of(case) is not None:
                return

    def _failure_of(self, case: Case) -> type[_Failure] | None:
        """Visit a case; the class of its failure, one for each origin, or None if it passes or is not clear enough."""
        try:
            self.visit(case)
        except Mismatch as mismatch:
            return _class_of(origin_of(mismatch)) if self._is_clear(mismatch) else None
        except Exception as error:  # no outcome of the case: nothing can be made small
            self._error = error
            raise _Ended from error
        return None

    def _polish(self, smallest: Case) -> None:
        """Go on shrinking beyond the class that the case was drawn from, for as many calls again."""
        self._calls = 0
        domain, dtypes = self.subject.domain, set(self.dtypes) & set(self.check.space.dtypes)
        tried: set[Case] = set()
        improved = True
        while improved:
            improved = False
            for case in simpler(smallest):
                # a dtype that is refused as a whole, was left out, or is none of the check's shows another difference
                if case in tried or case.dtype not in dtypes or self._calls >= self.shrink_calls:
                    continue
                if domain and not domain.allows(case):
                    continue
                tried.add(case)
                try:
                    self.visit(case)
                except Mismatch as mismatch:
                    if self._is_clear(mismatch):
                        smallest, improved = case, True
                        break
        self.minimal = smallest


_classes: dict[str, type[_Failure]] = {}


def _class_of(origin: str) -> type[_Failure]:
    if origin not in _classes:
        _classes[origin] = type("_Failure", (_Failure,), {})
    return _classes[origin]


def _not_judged(why: Exception, *, outside: bool) -> CaseResult:
    """A case that the original cannot run is not judged; one outside of its domain gives way to another one."""
    message = str(why) if isinstance(why, ReferenceRaises) else first_line(why)
    return CaseResult(notes=(f"{REFUSES}{message[:160]}",), judged=False, outside=outside)


def _original_raises(subject: Pair, case: Case) -> Exception | None:
    """The exception that the original raises on a case, run alone; None if it runs."""
    inside = subject.within_gpt() if case.n_layer else subject

    def alone() -> None:
        problem = inside.problem(case)
        problem.run(problem.reference, problem.inputs, gradients=True)
        problem.oracle_values(gradients=False)

    return failure(alone)


def seed_for(seed: int, name: str) -> int:
    """The seed of the check of this name in a run of this seed, whichever other checks are run."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:6], "big")
