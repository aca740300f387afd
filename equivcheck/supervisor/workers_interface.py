"""What a run asks of whoever runs the pair: processes that are forked for it, or the process of the caller."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from equivcheck.supervisor.piece import Piece

__all__ = ["Workers"]


class Workers(Protocol):
    """Whoever runs the pair: processes of its own, or the caller's."""

    @property
    def gaps(self) -> list[str]: ...

    @property
    def sealed(self) -> bool: ...

    def open(self) -> Mapping[str, Any]:
        """Load the pair; its kind, names and device."""

    def answer(self, name: str, **arguments: Any) -> Any:
        """The answer to one question."""

    def ready(self, **arguments: Any) -> None:
        """Prepare every process for the checks of the plan."""

    def begin(self, pieces: Sequence[Piece], on_case: Callable[[str], None]) -> None:
        """Be given all pieces; `on_case` is given the check of each case that is done."""

    def finish(self, pieces: Sequence[Piece]) -> None:
        """Return when these are done, up to the first that fails."""

    def make_small(self, piece: Piece, *, spend: bool) -> None:
        """See that a piece ends with a counterexample that is confirmed."""

    def ran(self, checks: Mapping[str, Mapping[str, Any]]) -> None:
        """Tell every process which cases the checks judged."""

    def detections(
        self, faults: Sequence[str], until: float, on_progress: Callable[[int], None]
    ) -> Iterator[str | None]:
        """Where each fault is seen first; `""` where it is not, None where that is not known."""

    def seen(self) -> list[Mapping[str, Any]]:
        """What foreign code has used in other processes than the one that answers."""

    def look_at_original(self, cases: Sequence[str]) -> None:
        """Have the original run on these cases where the candidate is not imported, beside what follows."""

    def findings(self) -> tuple[list[str], list[str]]:
        """What makes the comparison void, and what is worth a note, of what foreign code did beside its results."""
