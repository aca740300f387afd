"""The interface of a run to the processes that run the pair: forked ones, or that of the caller."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from equivcheck.report.outcomes import CaseOutcome
from equivcheck.report.time_spent import TimeSpent
from equivcheck.supervisor.piece import Piece

__all__ = ["OnCase", "Workers"]

OnCase = Callable[[str, CaseOutcome], None]
"""Is called with the check and the outcome of each case that is done."""


class Workers(Protocol):
    """The processes that run the pair: forked ones, or that of the caller."""

    @property
    def gaps(self) -> list[str]: ...

    @property
    def sealed(self) -> bool: ...

    def time_spent(self) -> TimeSpent:
        """The time of all processes until now, if it is counted."""

    def open(self) -> Mapping[str, Any]:
        """Load the pair; its kind, names and device."""

    def answer(self, name: str, **arguments: Any) -> Any:
        """The answer to one question."""

    def ready(self, **arguments: Any) -> None:
        """Prepare every process for the checks of the plan."""

    def apart(self) -> AbstractContextManager[None]:
        """Inside, the limits of time that cases have shown are those of the cases inside alone."""

    def begin(self, pieces: Sequence[Piece], on_case: OnCase) -> None:
        """Take the first pieces."""

    def add(self, pieces: Sequence[Piece]) -> None: ...
    def finish(self, pieces: Sequence[Piece]) -> None:
        """Wait until these are done, up to the first that fails."""

    def make_small(self, piece: Piece, *, spend: bool) -> None:
        """Give a piece a counterexample that is confirmed."""

    def ran(self, checks: Mapping[str, Mapping[str, Any]]) -> None:
        """Send every process the cases that the checks judged."""

    def detections(
        self, faults: Sequence[str], until: float, on_progress: Callable[[int], None]
    ) -> Iterator[str | None]:
        """Yield the first detection of each fault: `""` if there is none, None if that is not known."""

    def seen(self) -> list[Mapping[str, Any]]:
        """The files and hosts that foreign code has used in other processes than the one that answers."""

    def look_at_original(self, cases: Sequence[str]) -> None:
        """Start the original on these cases in a process without the candidate; do not wait for it."""

    def findings(self) -> tuple[list[str], list[str]]:
        """Side effects of foreign code: findings that make the comparison void, and notes."""
