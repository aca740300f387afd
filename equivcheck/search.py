"""One check's search: which cases are drawn, in what order they are run, and how a failing one is made small."""

import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import hypothesis
from hypothesis import HealthCheck, Phase, Verbosity, given, settings

from equivcheck.cases import DTYPES, Case
from equivcheck.checks import Check, Held
from equivcheck.checks.holding import first_line, raised
from equivcheck.comparison import Mismatch, Raised
from equivcheck.errors import ReferenceRaises, ToolError, UsageError
from equivcheck.lost import hold_device
from equivcheck.settings import kept
from equivcheck.sides import REFERENCE, ensure_foreign, failure, raised_by
from equivcheck.strategies import simpler
from equivcheck.subject import Subject

__all__ = ["Drawn", "Search", "seed_for"]

_WIDE = 128
"""The widest head that a candidate must take: of wider ones it may refuse all."""


class _OutOfTime(BaseException):
    """Ends the drawing of cases at once; no Exception, which Hypothesis would take for a failure and shrink."""


@dataclass(frozen=True)
class Drawn:
    """What came of some of a search's cases."""

    held: dict[Case, Held]
    failed: dict[Case, Mismatch]
    minimal: Case | None
    stopped: bool
    seconds: float


@dataclass
class Search:
    """One check's cases, in the order in which they were run, and what came of them."""

    check: Check
    subject: Subject
    planned: int
    shrink_s: float
    until: float
    told: Callable[[int], None]
    held: dict[Case, Held] = field(default_factory=dict)
    failed: dict[Case, Mismatch] = field(default_factory=dict)
    minimal: Case | None = None
    stopped: bool = False
    seconds: float = 0.0  # of work, all processes together
    explained: str = ""  # the whole difference in one sentence, where it is known
    dtypes: Sequence[str] = DTYPES  # that a counterexample may have: what is asked for, and what the candidate takes
    _shrink_until: float = 0.0

    def visit(self, case: Case) -> None:
        """Run the check on a case once; later calls repeat the outcome, so that shrinking counts nothing twice."""
        if case in self.failed:
            self.minimal = case
            raise self.failed[case]
        if case in self.held:
            return
        now = time.monotonic()
        # out of time: what is not known to fail counts as passing, so that shrinking ends with the smallest known failure
        if now > self.until or (self.failed and now > self._shrink_until):
            if self.failed:
                return
            self.stopped = True
            raise _OutOfTime
        try:
            with kept():  # a setting that a candidate switches in one check must not be there before the next looks
                held = self.check.run(self.subject, case)
        except Mismatch as mismatch:
            if not (isinstance(mismatch, Raised) and case.head_size > _WIDE):
                self._fails(case, mismatch)
                raise
            # loud, and what kernels are known for: they keep a head in registers
            held = Held(notes=(f"head sizes past {_WIDE} were not judged: {mismatch}",), judged=False)
        except ReferenceRaises as why:
            held = _not_asked(why)
        except (UsageError, KeyboardInterrupt):
            raise
        except ToolError as error:
            raise ToolError(f"{error}, in {self.check.name} on {case.id}") from error
        except Exception as error:
            hold_device(self.subject.device, f"{self.check.name} was judged on {case.id}", error)
            held = _not_asked(self._of_reference(case, error))
        self.held[case] = held
        if not self.failed:
            self.told(len(self.held))

    def _fails(self, case: Case, mismatch: Mismatch) -> None:
        if not self.failed:
            self._shrink_until = time.monotonic() + self.shrink_s
        self.failed[case] = mismatch
        self.minimal = case

    def _of_reference(self, case: Case, error: Exception) -> Exception:
        """An exception that came out of a check, where it is the original's; a Mismatch where it is the candidate's alone."""
        try:
            ensure_foreign(error)
        except ToolError as mistake:
            raise ToolError(f"{mistake}, in {self.check.name} on {case.id}") from error
        if raised_by(error) == REFERENCE:
            return error
        why = _original_raises(self.subject, case)
        if why is None:
            self._fails(case, found := raised(error))
            raise found from error
        return why

    @property
    def drawn(self) -> Drawn:
        """What came of the cases so far."""
        return Drawn(self.held, self.failed, self.minimal, self.stopped, self.seconds)

    def take(self, drawn: Drawn) -> None:
        """Add what another search has come to in a class of its own."""
        # a case that two classes have drawn counts once, as it does where one search draws both
        self.held.update({case: held for case, held in drawn.held.items() if case not in self.failed})
        self.failed.update(drawn.failed)
        self.minimal = self.minimal or drawn.minimal
        self.stopped = self.stopped or drawn.stopped
        self.seconds += drawn.seconds

    def run(self, classes: Sequence[tuple[Any, int]], seed: int, *, only: int | None = None) -> None:
        """Draw each class's number of cases, or `only` one's; where one fails, shrink it and leave the other classes."""
        began = time.monotonic()
        try:
            for number, (strategy, count) in enumerate(classes):
                if only not in (None, number):
                    continue
                self._draw(strategy, count, seed + number)
                if last := next(
                    reversed(self.held), None
                ):  # a check may take an error for the original's, or a refusal
                    hold_device(self.subject.device, f"{self.check.name} was judged on {last.id}")
                if self.minimal is not None:
                    self._polish(self.minimal)
                    return
        finally:
            self.seconds += time.monotonic() - began

    def _draw(self, strategy: Any, count: int, seed: int) -> None:
        @hypothesis.seed(seed)
        @settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=(Phase.generate, Phase.shrink),
            suppress_health_check=list(HealthCheck),
            report_multiple_bugs=False,
            verbosity=Verbosity.quiet,
        )
        @given(strategy)
        def property_holds(case: Case) -> None:
            self.visit(case)

        with suppress(Mismatch, _OutOfTime):
            property_holds()

    def _polish(self, smallest: Case) -> None:
        """Go on shrinking beyond the class that the case was drawn from, for as long again."""
        self._shrink_until = max(self._shrink_until, time.monotonic()) + self.shrink_s
        tried: set[Case] = set()
        found = True
        while found:
            found = False
            for case in simpler(smallest):
                # a dtype that is refused as a whole, or was left out, tells nothing of the difference that was found
                if case in tried or case.dtype not in self.dtypes or time.monotonic() > self._shrink_until:
                    continue
                tried.add(case)
                try:
                    self.visit(case)
                except Mismatch:
                    smallest, found = case, True
                    break
        self.minimal = smallest


def _not_asked(why: Exception) -> Held:
    """What the original cannot do is asked of nobody."""
    told = str(why) if isinstance(why, ReferenceRaises) else first_line(why)
    return Held(notes=(f"not judged where the original itself raises {told[:160]}",), judged=False)


def _original_raises(subject: Subject, case: Case) -> Exception | None:
    """What the original raises on a case, by itself; None where it runs."""
    inside = subject.within_gpt() if subject.kind == "module" and case.n_layer else subject

    def alone() -> None:
        problem = inside.problem(case)
        problem.run(problem.reference, problem.inputs, gradients=True)
        problem.oracle_values(gradients=False)

    return failure(alone)


def seed_for(seed: int, name: str) -> int:
    """The seed of the check of this name in a run of this seed: the same whichever other checks are run."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}".encode()).digest()[:6], "big")
