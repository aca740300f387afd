"""The process of the caller as the one that runs the pair: for objects that no import string names."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from equivcheck.report.outcomes import CaseOutcome, Searched
from equivcheck.report.time_spent import Account, TimeSpent
from equivcheck.runtime import clock
from equivcheck.runtime.file_access import Access
from equivcheck.supervisor.piece import Piece
from equivcheck.supervisor.workers_interface import OnCase
from equivcheck.worker.judge import Judge

__all__ = ["InProcess"]


class InProcess:
    """Does the work of workers, one piece after the other; the death of this process ends the run."""

    sealed = False

    def __init__(self, access: Access, until: float, **loading: Any) -> None:
        """Load nothing yet.

        Args:
            access: The record of what foreign code uses.
            until: The time of `time.monotonic` at which the run ends.
            loading: The arguments of `Judge.load`.
        """
        self.gaps: list[str] = []
        self._judge = Judge(access, ended=self._ended)
        self._until, self._loading = until, loading
        self._piece: Piece | None = None
        self._account = Account()
        self._on_case: OnCase = lambda check, outcome: None

    def _ended(self, outcome: CaseOutcome) -> None:
        if self._piece is not None:
            self._piece.searched.add(outcome)
            self._on_case(self._piece.check, outcome)

    def time_spent(self) -> TimeSpent:
        """The time of this process until now, if it has a clock."""
        self._account.add(clock.drained())
        return self._account.so_far()

    def open(self) -> Mapping[str, Any]:
        """Load the pair; its kind, names and device."""
        return self._judge.load(**self._loading)

    def answer(self, name: str, **arguments: Any) -> Any:
        """The answer to one question."""
        return getattr(self._judge, name)(**arguments)

    def ready(self, **arguments: Any) -> None:
        """Do nothing: the process that has made the plan is the one that runs it."""

    def apart(self) -> AbstractContextManager[None]:
        """Do nothing: no process is ended here, and no time limit learnt."""
        return nullcontext()

    def begin(self, pieces: Sequence[Piece], on_case: OnCase) -> None:
        """Take the function to call with the check and outcome of each case that is done."""
        self._on_case = on_case

    def add(self, pieces: Sequence[Piece]) -> None:
        """Do nothing: pieces are run when they have to be finished."""

    def finish(self, pieces: Sequence[Piece]) -> None:
        """Run these, up to the first that fails."""
        for piece in pieces:
            if piece.done:
                if piece.searched.minimal is not None:
                    return
                continue
            known = [outcome.plain() for outcome in (*piece.searched.passed.values(), *piece.searched.failed.values())]
            left_s, spent_s = self._until - time.monotonic(), piece.searched.seconds
            shrinks = math.inf if piece.most is None else 0
            piece.searched, self._piece = Searched(), piece
            answer = self._judge.piece(piece.check, piece.number, known, shrinks, left_s, piece.most, case=piece.case)
            self._piece = None
            piece.searched.minimal, piece.searched.stopped = answer["minimal"], answer["stopped"]
            piece.searched.seconds, piece.done = spent_s + answer["seconds"], True
            if piece.searched.minimal is not None:
                return

    def make_small(self, piece: Piece, *, spend: bool) -> None:
        """Do nothing: no process has died."""

    def ran(self, checks: Mapping[str, Mapping[str, Any]]) -> None:
        """Record which cases the checks judged."""
        self._judge.ran(checks)

    def detections(
        self, faults: Sequence[str], until: float, on_progress: Callable[[int], None]
    ) -> Iterator[str | None]:
        """Yield the first detection of each fault: `""` if there is none, None if time ran out."""
        for number, fault in enumerate(faults):
            on_progress(number)
            yield self._judge.detect(fault, until - time.monotonic())
        on_progress(len(faults))

    def seen(self) -> list[Mapping[str, Any]]:
        """Nothing: there is no other process."""
        return []

    def look_at_original(self, cases: Sequence[str]) -> None:
        """Do nothing: there is no process that has not imported the candidate."""

    def findings(self) -> tuple[list[str], list[str]]:
        """Nothing: no process runs the original alone."""
        return [], []
