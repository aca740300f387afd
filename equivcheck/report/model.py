"""What a run established: plain data that every rendering, the gate and the exit status are made from."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Literal

__all__ = [
    "SCHEMA_VERSION",
    "CheckResult",
    "Counterexample",
    "Deviation",
    "Outcome",
    "Package",
    "Report",
    "Sensitivity",
    "Timing",
]

SCHEMA_VERSION = 4
"""3 did not say whether a run was sealed; 2 had no dtypes, no packages and nothing of what is not covered; 1 is not read."""

Outcome = Literal["equivalent", "different", "unsupported", "deviation"]


@dataclass(frozen=True)
class Counterexample:
    """The smallest failing case of a check, its comparison in words, and the command that shows it again."""

    case: str
    message: str
    replay: str
    ratio: float | None = None


@dataclass(frozen=True)
class CheckResult:
    """One check's outcome over all its cases; `worst_ratio` is error / budget, and None where the check does not measure one."""

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
    unsupported: tuple[str, ...] = ()  # what the candidate refuses loudly, such as a whole dtype
    visited: Mapping[str, Mapping[str, int]] = field(
        default_factory=dict
    )  # dimension, or two joined by × -> value -> cases
    by_dtype: Mapping[str, float] = field(default_factory=dict)  # dtype -> the worst ratio measured in it


@dataclass(frozen=True)
class Sensitivity:
    """Which planted faults this very run, with its cases and budgets, would have caught."""

    planted: tuple[str, ...] = ()
    survived: tuple[str, ...] = ()
    caught_by: Mapping[str, str] = field(default_factory=dict)  # fault -> "check on case"
    seconds: float = 0.0
    without_effect: tuple[str, ...] = ()  # that were left out, as nothing of them shows around this pair
    untried: tuple[str, ...] = ()  # that time did not suffice for

    @property
    def caught(self) -> int:
        """How many of the planted faults were seen."""
        return len(self.planted) - len(self.survived)

    @property
    def sensitive(self) -> bool:
        """Whether faults were planted at all, and none of them survived."""
        return bool(self.planted) and not self.survived


@dataclass(frozen=True)
class Deviation:
    """A difference that was declared with a reason, until when it is accepted, and whether the run saw it."""

    name: str  # of the check that may differ
    reason: str
    expires: str | None = None  # ISO 8601 date, the last day on which it is accepted
    observed: bool = False

    def expired(self, today: date) -> bool:
        """Whether the last day on which it is accepted has passed."""
        return self.expires is not None and date.fromisoformat(self.expires) < today


@dataclass(frozen=True)
class Timing:
    """Reference and candidate timed in one paired run; None where one of them did not fit into memory, or was not measured."""

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
class Package:
    """An installed package that the pair imports: its version, and one SHA-256 of its files where they are covered."""

    version: str
    sha256: str = ""


@dataclass(frozen=True)
class Report:
    """A run of `verify`: what was judged, on which device, from which source, and what came of it."""

    reference: str
    candidate: str
    kind: str
    device: str
    profile: str
    seed: int
    results: tuple[CheckResult, ...]
    sensitivity: Sensitivity
    complete: bool  # False where the run was interrupted or ran out of its time: then nothing is proved
    seconds: float
    created: str  # ISO 8601, UTC
    environment: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)  # part -> one SHA-256 of its files
    files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Part -> file -> SHA-256: equivcheck, reference, candidate; what was loaded, and what was read, while the pair ran."""
    packages: Mapping[str, Package] = field(default_factory=dict)  # that the pair's own files import, less torch
    not_covered: tuple[str, ...] = ()  # what the pair depends on, and no hash or version stands for
    dtypes: tuple[str, ...] = ()  # in which the pair was judged
    dtypes_not_run: Mapping[str, str] = field(default_factory=dict)  # of those that were asked for, and why not
    candidate_file: str | None = None  # where the candidate is defined, for whoever points at it
    candidate_line: int | None = None
    deviations: tuple[Deviation, ...] = ()
    kernels: Mapping[str, str] = field(
        default_factory=dict
    )  # problem, such as "bfloat16, head size 64" -> the kernel that ran
    options_not_judged: tuple[str, ...] = ()  # that the original alone takes
    findings: tuple[
        str, ...
    ] = ()  # what makes the comparison void, or the candidate another one, whatever the checks say
    sealed: bool = True  # whether the pair ran in processes of its own, apart from what made the verdict
    strict: bool = False  # whether what the candidate refuses loudly counts as a failure
    schema_version: int = SCHEMA_VERSION

    @property
    def cases(self) -> int:
        """How many cases were held against all checks together."""
        return sum(result.cases for result in self.results)

    @property
    def equivalent(self) -> bool:
        """True where every check ran and found nothing, the run was sensitive, and if `strict` nothing is unsupported."""
        return self.verdict == "equivalent"

    @property
    def verdict(self) -> str:
        """One word: `equivalent`, `different`, `unsupported` (of a strict run only), `insensitive` or `partial`."""
        if self.findings or any(result.outcome == "different" for result in self.results):
            return "different"
        if not self.complete or not self.results:
            return "partial"
        if self.strict and any(result.unsupported or result.outcome == "unsupported" for result in self.results):
            return "unsupported"
        return "equivalent" if self.sensitivity.sensitive else "insensitive"

    def save(self, path: str | Path) -> None:
        """Write the report as JSON, whole or not at all; an OSError says why it could not be written."""
        from equivcheck.report.codec import write

        write(self, Path(path))

    @classmethod
    def load(cls, path: str | Path) -> "Report":
        """Read a report that `save` wrote; a ReportError says what is wrong with the file."""
        from equivcheck.report.codec import read

        return read(Path(path))
