"""One class of a check's cases, as workers are given it, and its outcomes so far."""

from dataclasses import dataclass, field

from equivcheck.report.outcomes import CaseOutcome, Searched

__all__ = ["Piece"]


@dataclass(eq=False)
class Piece:
    """One class of a check's cases: its outcomes so far, and whether it is done.

    With `most` no more than so many cases are run, and a failing one is not made small. With `case` it is that one case,
    and no class.
    """

    check: str
    number: int
    most: int | None = None
    case: str | None = None
    searched: Searched = field(default_factory=Searched)
    journal: dict[str, CaseOutcome] = field(default_factory=dict)
    shrinking: bool = False  # deaths may be spent on it
    deaths: int = 0  # while its counterexample is made small
    unconfirmed: set[str] = field(default_factory=set)  # cases of which a process died once
    of_reference: int = 0
    failed_first: bool = False  # a case that is run before all others failed: the piece comes first of its check then
    done: bool = False
    dropped: bool = False  # an earlier piece of the check fails: it is not needed
