"""One of several parts of a run: what it says beyond its results, so that all parts together make the whole report."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from equivcheck.report.case_outcomes import CaseOutcome, Searched
from equivcheck.report.diagnosis import Diagnosis

__all__ = ["FurtherFinding", "PlannedCheck", "Shard", "ShardCoverage", "ShardFault", "ShardPiece"]


@dataclass(frozen=True)
class PlannedCheck:
    """A check in the plan of the whole run."""

    name: str
    planned: int
    classes: int
    judges: bool
    replay: str


@dataclass(frozen=True)
class ShardPiece:
    """One class of a check's cases, with the outcome of each case."""

    check: str
    number: int  # of the class
    failed_first: bool  # whether a case failed that is run before all others: its class comes first then
    outcomes: tuple[CaseOutcome, ...] = ()  # those that passed, and after them those that failed
    minimal: str | None = None
    stopped: bool = False
    seconds: float = 0.0
    diagnosis: Diagnosis = field(default_factory=Diagnosis)
    level: str = ""

    def searched(self) -> Searched:
        """The cases as a check's result is made of them."""
        searched = Searched(
            minimal=self.minimal,
            stopped=self.stopped,
            seconds=self.seconds,
            diagnosis=self.diagnosis,
            level=self.level,
        )
        for outcome in self.outcomes:
            searched.add(outcome)
        return searched


@dataclass(frozen=True)
class FurtherFinding:
    """A difference of a check behind its first one: the smallest case, with its diagnosis."""

    check: str
    smallest: CaseOutcome
    diagnosis: Diagnosis = field(default_factory=Diagnosis)
    level: str = ""

    def searched(self) -> Searched:
        """The round in which it was seen, with this case alone."""
        case = self.smallest.case
        return Searched(failed={case: self.smallest}, minimal=case, diagnosis=self.diagnosis, level=self.level)


@dataclass(frozen=True)
class ShardFault:
    """A planted fault, tried on the cases of one shard.

    One of the shards decides whether the fault is left out because too few cases would show it, and whether it changes
    nothing where it is not seen. Both take as long as many cases, and are the same for all shards.
    """

    name: str
    level: str
    check: str  # that should see it: without this check it is not planted
    of_candidate: bool  # whether it is planted around the candidate
    seen: str | None = ""  # "check on case"; empty if no case saw it, null if time ran out
    decides: bool = False  # whether this shard is the one that decides the next two
    left_out: bool = False
    without_effect: bool = False


@dataclass(frozen=True)
class ShardCoverage:
    """The combinations of classes of a case's factors that the judged cases of one class of a check do not meet."""

    check: str
    number: int  # of the class
    strength: str
    of: int
    not_met: Mapping[str, str] = field(default_factory=dict)  # reason -> a hexadecimal number with a bit for each


@dataclass(frozen=True)
class Shard:
    """One of several parts of a run. It is no evidence by itself.

    `plan_sha256` is empty if the run ended before it had a plan. It is the same for all shards of one run.
    """

    number: int  # from 1
    of: int
    plan_sha256: str = ""
    plan: tuple[PlannedCheck, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)  # dtype -> why it was left out
    notes_before: tuple[str, ...] = ()  # on the whole run, before those of its first result
    notes_after: tuple[str, ...] = ()
    pieces: tuple[ShardPiece, ...] = ()
    further: tuple[FurtherFinding, ...] = ()
    faults: tuple[ShardFault, ...] = ()
    coverage: tuple[ShardCoverage, ...] = ()

    @property
    def name(self) -> str:
        """The verdict of a shard that is whole and saw no difference."""
        return f"shard {self.number}/{self.of}"
