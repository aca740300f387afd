"""The outcome of one case as plain data, and the cases of a check in the order in which they were run."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from equivcheck.report.diagnosis import Diagnosis

__all__ = ["CaseOutcome", "Searched"]


@dataclass(frozen=True)
class CaseOutcome:
    """One case of a check: the measurement if it passed, and the difference in words if it failed.

    Attributes:
        case: The case's id.
        visited: Its value of each dimension: dtype, regime, mode, layout, length.
        ratio: Error / budget, if one was measured.
        where: The tensor with that ratio, or the kind of error.
        notes: Remarks on the case that are not judged.
        unsupported: The loud refusals of the candidate.
        judged: Whether anything was compared.
        applies: Whether the property has a meaning for the pair.
        reason: Why nothing was compared although it has, in one word.
        finding: The part of the property that fails; empty for the main one.
        failed: The difference in words; None if there is none.
        origin: The kind of the failure: failures of different kinds are not shrunk into each other.
        data: The kernels that ran, by dtype; only of the check `backend`.
        outside: Whether the original refuses the case in a plain call, so that another one was drawn.
        spot: Where and how large the difference is, for programs: fields of a `Counterexample`.
        died: The way in which the process of the case ended: `died`, `hang`, `memory`, or `""` if it did not end.
    """

    case: str
    visited: Mapping[str, str] = field(default_factory=dict)
    ratio: float | None = None
    where: str = ""
    notes: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()
    judged: bool = True
    failed: str | None = None
    origin: str = ""
    died: str = ""
    data: Mapping[str, str] = field(default_factory=dict)
    applies: bool = True
    reason: str = ""
    finding: str = ""
    outside: bool = False
    spot: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "CaseOutcome":
        """The outcome whose `plain` is this mapping."""
        return cls(**{**plain, "notes": tuple(plain["notes"]), "unsupported": tuple(plain["unsupported"])})

    def plain(self) -> dict[str, Any]:
        """The outcome in the types of JSON."""
        return asdict(self)


@dataclass
class Searched:
    """The cases of one check, in the order in which they were run: those that passed, and those that failed."""

    passed: dict[str, CaseOutcome] = field(default_factory=dict)
    failed: dict[str, CaseOutcome] = field(default_factory=dict)
    minimal: str | None = None  # the smallest case that fails
    stopped: bool = False  # whether time ran out
    seconds: float = 0.0  # of work, all processes together
    diagnosis: Diagnosis = field(default_factory=Diagnosis)  # of the smallest case
    level: str = ""  # the level of the difference, if evidence gives another one than the check's

    def add(self, outcome: CaseOutcome) -> None:
        """Add the outcome of a case; a case that two classes have drawn counts once."""
        if outcome.failed is not None:
            self.failed[outcome.case] = outcome
            self.passed.pop(outcome.case, None)
        elif outcome.case not in self.failed:
            self.passed[outcome.case] = outcome

    def take(self, other: "Searched") -> None:
        """Add the cases of another class of the same check."""
        for outcome in (*other.passed.values(), *other.failed.values()):
            self.add(outcome)
        self.minimal = self.minimal or other.minimal
        self.stopped = self.stopped or other.stopped
        self.seconds += other.seconds

    @property
    def cases(self) -> int:
        """The number of cases."""
        return len(self.passed) + len(self.failed)
