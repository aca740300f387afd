"""The results of a run: plain data that every rendering, the gate and the exit status are made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, Literal

from equivcheck.report.catalogue import SCREEN, is_listed, levels_known, listed
from equivcheck.report.diagnosis import Diagnosis
from equivcheck.report.levels import LEVELS, outcome_at, required_of
from equivcheck.report.shard import Shard
from equivcheck.report.time_spent import TimeSpent

__all__ = [
    "GRADIENT",
    "SCHEMA_VERSION",
    "CheckResult",
    "Combinations",
    "Counterexample",
    "Deviation",
    "Finding",
    "Outcome",
    "Package",
    "Report",
    "Sensitivity",
    "Timing",
]

GRADIENT = "grad "
"""The name of a gradient begins with it."""

SCHEMA_VERSION = 5
"""4 had no levels; 3 had no `sealed` either; 2 had no `dtypes`, `packages` and `not_covered` either; 1 is not read."""

Outcome = Literal["equivalent", "different", "unsupported", "deviation", "not judged", "not applicable", "not refuted"]


@dataclass(frozen=True)
class Counterexample:
    """The smallest failing case of a check, its comparison in words, and the command that shows it again."""

    case: str
    message: str
    replay: str
    ratio: float | None = None
    stage: str = ""  # forward, backward, exception or process; empty for another property
    tensor: str = ""  # the worst one, if tensors were compared
    index: tuple[int, ...] = ()  # of its worst element
    candidate: float | None = None  # that element
    oracle: float | None = None
    norm: str = ""  # element, row or tensor: of which the next two are the error and the budget
    row: tuple[int, ...] = ()
    error: float | None = None
    allowed: float | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)  # of the case, by name; empty if its process died
    diagnosis: Diagnosis = field(default_factory=Diagnosis)

    @property
    def module(self) -> str:
        """The submodule in which the difference begins, else that whose parameter has the wrong gradient, else empty."""
        if self.diagnosis.module or self.diagnosis.beside:
            return self.diagnosis.module
        return self.tensor.removeprefix(GRADIENT).rpartition(".")[0] if self.tensor.startswith(GRADIENT) else ""


@dataclass(frozen=True)
class Finding:
    """A difference that a check has seen: the part of its property that fails, its level, and the smallest case."""

    name: str  # empty for the main part of the property
    level: str
    outcome: Literal["different", "deviation"]
    counterexample: Counterexample
    detail: str = ""  # the reason of a deviation


@dataclass(frozen=True)
class CheckResult:
    """One check's outcome over all its cases.

    `worst_ratio` is error / budget; None if the check does not measure one. `levels` has the outcome at each level that
    the check has looked at. `counterexample` is that of the first finding.
    """

    name: str
    outcome: Outcome
    cases: int
    seconds: float = 0.0
    worst_ratio: float | None = None
    worst_case: str | None = None
    worst_where: str | None = None
    counterexample: Counterexample | None = None
    detail: str = ""
    notes: tuple[str, ...] = ()
    unsupported: tuple[str, ...] = ()  # what the candidate refuses with an error, such as a whole dtype
    visited: Mapping[str, Mapping[str, int]] = field(
        default_factory=dict
    )  # dimension, or two joined by × -> value -> cases
    by_dtype: Mapping[str, float] = field(default_factory=dict)  # dtype -> the worst ratio measured in it
    levels: Mapping[str, str] = field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    not_judged: Mapping[str, int] = field(default_factory=dict)  # reason -> cases in which nothing was compared
    shortened: bool = False  # whether only its first cases were run: what they show is different without it

    def __post_init__(self) -> None:
        """Put the outcome at the level of the check, unless findings give levels: so in reports of earlier versions."""
        level = listed(self.name).level if is_listed(self.name) else ""
        if level and not self.findings:
            object.__setattr__(self, "levels", {level: self.outcome})

    @property
    def shown(self) -> tuple[Finding, ...]:
        """The findings with their smallest cases; that of the counterexample if there is no more."""
        if self.findings or self.counterexample is None:
            return self.findings
        level = next(iter(self.levels), "")
        outcome: Literal["different", "deviation"] = "deviation" if self.outcome == "deviation" else "different"
        return (Finding("", level, outcome, self.counterexample, self.detail),)

    @property
    def in_vain(self) -> bool:
        """Whether the check was run on request, and compared nothing."""
        return self.outcome == "not judged" and is_listed(self.name) and listed(self.name).on_request

    def name_of(self, finding: Finding) -> str:
        """The name of one of its findings in reports and declarations: `check.finding`, or the check's."""
        return f"{self.name}.{finding.name}" if finding.name else self.name

    @property
    def differing(self) -> tuple[str, ...]:
        """The names of the findings that are different and not declared, as `check` or `check.finding`."""
        named = [self.name_of(f) for f in self.findings if f.outcome == "different"]
        return tuple(named) or ((self.name,) if self.outcome == "different" else ())


@dataclass(frozen=True)
class Sensitivity:
    """The planted faults, and which of them this run caught with its cases and budgets."""

    planted: tuple[str, ...] = ()
    survived: tuple[str, ...] = ()
    caught_by: Mapping[str, str] = field(default_factory=dict)  # fault -> "check on case"
    seconds: float = 0.0
    without_effect: tuple[str, ...] = ()  # left out: they change nothing around this pair
    untried: tuple[str, ...] = ()  # left out: time ran out
    levels: Mapping[str, str] = field(default_factory=dict)  # fault -> the level at which it is wrong
    skipped: str = ""  # why nothing was planted, if that was decided

    @property
    def caught(self) -> int:
        """The number of planted faults that were caught."""
        return len(self.planted) - len(self.survived)


@dataclass(frozen=True)
class Deviation:
    """A declared difference: its reason, the last day on which it is accepted, and whether the run observed it."""

    name: str  # of the check that may differ
    reason: str
    expires: str | None = None  # ISO 8601 date, the last day on which it is accepted
    observed: bool = False

    def expired(self, today: date) -> bool:
        """Whether the last day on which it is accepted has passed."""
        return self.expires is not None and date.fromisoformat(self.expires) < today


@dataclass(frozen=True)
class Timing:
    """Reference and candidate timed in one paired run.

    A number is None if that side did not fit into memory, or was not measured.
    """

    what: str  # such as "attention forward"
    dtype: str
    seq_len: int
    reference_ms: float | None = None
    candidate_ms: float | None = None
    speed_up: float | None = None  # reference_ms / candidate_ms, as the paired run estimates it
    speed_up_low: float | None = None
    speed_up_high: float | None = None
    reference_bytes: int | None = None  # peak memory above what is resident
    candidate_bytes: int | None = None
    remark: str = ""  # such as "the reference does not fit"


@dataclass(frozen=True)
class Combinations:
    """Combinations of classes of a case's factors: how many the judged cases of a check meet, and of how many."""

    met: int
    of: int
    not_met: Mapping[str, int] = field(default_factory=dict)  # reason -> combinations

    def __getitem__(self, name: str) -> Any:
        """A field by its name, as in the file."""
        return getattr(self, name)


@dataclass(frozen=True)
class Package:
    """An installed package that the pair imports: its version, and one SHA-256 of its files if they are covered."""

    version: str
    sha256: str = ""


@dataclass(frozen=True)
class Report:
    """A run of `verify`: the pair, the device, the source files, and the results."""

    reference: str
    candidate: str
    kind: str
    device: str
    profile: str
    seed: int
    results: tuple[CheckResult, ...]
    sensitivity: Sensitivity
    complete: bool  # False if the run was interrupted or ran out of time: then it proves nothing
    seconds: float
    created: str  # ISO 8601, UTC
    environment: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)  # part -> one SHA-256 of its files
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Part -> file -> SHA-256: equivcheck, reference, candidate; modules loaded and files read while the pair ran."""
    packages: Mapping[str, Package] = field(
        default_factory=dict
    )  # those that the files of the pair import, without torch
    not_covered: tuple[str, ...] = ()  # dependencies of the pair that no hash or version covers
    dtypes: tuple[str, ...] = ()  # in which the pair was judged
    dtypes_not_run: Mapping[str, str] = field(default_factory=dict)  # requested dtype -> why nothing was judged in it
    candidate_file: str | None = None  # the place of its definition, for annotations
    candidate_line: int | None = None
    deviations: tuple[Deviation, ...] = ()
    kernels: Mapping[str, str] = field(
        default_factory=dict
    )  # problem, such as "bfloat16, head size 64" -> the kernel that ran
    options_not_judged: tuple[str, ...] = ()  # those that only the original takes
    findings: tuple[str, ...] = ()
    """Facts that make the verdict `different`, whatever the checks say, such as a replaced original."""
    sealed: bool = True  # whether the pair ran in other processes than the one that made the verdict
    strict: bool = False  # whether a loud refusal of the candidate counts as a failure
    require: tuple[str, ...] = ()  # the levels that must be equivalent; empty for those of the pair's kind
    domain: str = ""  # the cases that the original is meant for; empty if every case is
    time_spent: TimeSpent | None = None  # None if the run did not keep it; a file has no such field then
    remembered: tuple[CheckResult, ...] | None = None
    """Counterexamples of earlier runs, a result for each, apart from the drawn cases; None if none were asked for."""
    coverage: Mapping[str, Mapping[str, Combinations]] = field(default_factory=dict)
    """Name of a check that compares values -> `pairs` and `triples` -> the combinations that its cases meet."""
    shard: Shard | None = None  # None if it is of a whole run; a file has no such field then
    schema_version: int = SCHEMA_VERSION

    @property
    def shown(self) -> tuple[CheckResult, ...]:
        """The results, and those of remembered cases that show a difference which no result has."""
        seen = {name for result in self.results for name in result.differing}
        return (*self.results, *(r for r in self._still_different if not seen.issuperset(r.differing)))

    @property
    def _still_different(self) -> tuple[CheckResult, ...]:
        return tuple(result for result in self.remembered or () if result.outcome == "different")

    @property
    def cases(self) -> int:
        """The number of drawn cases of all checks together."""
        return sum(result.cases for result in self.results)

    @property
    def equivalent(self) -> bool:
        """True if every required level is equivalent, the run is whole, and it saw the faults of these levels."""
        return self.verdict == "equivalent"

    @property
    def levels(self) -> Mapping[str, str]:
        """The outcome at each level: the worst of the checks that looked at it; a remembered case can differ, too."""
        known = levels_known(self.kind)
        levels = {level: outcome_at(level, self.results, applies=level in known) for level in LEVELS}
        return levels | dict.fromkeys(self._differing_again, "different")

    @property
    def _differing_again(self) -> set[str]:
        """The levels at which a remembered case differs."""
        return {level for r in self._still_different for level, outcome in r.levels.items() if outcome == "different"}

    @property
    def required(self) -> tuple[str, ...]:
        """The levels that the verdict rests on; without a request those of the kind that some check has looked at."""
        if self.require:
            return self.require
        seen = {level for result in self.results for level in result.levels} | self._differing_again
        return tuple(level for level in required_of(self.kind) if level in seen or not self.results)

    @property
    def survived(self) -> tuple[str, ...]:
        """The planted faults of required levels that no check saw, and those of a kernel that is required."""
        of = self.sensitivity
        return tuple(fault for fault in of.survived if of.levels.get(fault, "") in ("", *self.required))

    @property
    def verdict(self) -> str:
        """One word of the design: the worst outcome of a required level, of the run, and of its sensitivity."""
        levels = self.levels
        required = {levels[level] for level in self.required}
        recorded = any(result.outcome == "different" and not result.levels for result in self.shown)
        if self.findings or recorded or "different" in required:
            return "different"
        if not self.complete or not (self.results or self.shard):
            return "partial"
        if self.strict and any(result.unsupported or result.outcome == "unsupported" for result in self.results):
            return "unsupported"
        if self.shard is not None:
            return self.shard.name
        if "not judged" in required or any(result.in_vain for result in self.results):
            return "not judged"
        if self.profile == SCREEN:
            return "not refuted"
        return "equivalent" if self.sensitivity.planted and not self.survived else "insensitive"

    def save(self, path: str | Path) -> None:
        """Write the report as JSON, whole or not at all; an OSError says why it could not be written."""
        from equivcheck.report.codec import write

        write(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> "Report":
        """Read a report that `save` wrote; a ReportError says what is wrong with the file."""
        from equivcheck.report.codec import read

        return read(Path(path))
