"""The request of a run as plain data: which checks, how many cases, in which dtypes, and within which limits."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from equivcheck.report.model import Deviation
from equivcheck.report.outcomes import DTYPES

__all__ = ["Request"]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A user's request of a run, independent of the pair.

    Attributes:
        profile: quick, gate or thorough.
        checks: The names of the checks to run; None for all that apply.
        exclude: The names of checks that are left out.
        seed: The seed of the cases.
        dtypes: The dtypes to judge in.
        require_backend: The kernels that must run.
        max_memory_ratio: How many times the original's memory the candidate may take; None for any.
        deviations: Name of a check -> the reason why a difference is accepted.
        strict: Whether a loud refusal of the candidate is a failure, too.
        max_seconds: The seconds after which the run ends, if need be with a partial report.
        jobs: How many processes share the work; None for as many as suit the machine and the plan.
        case_seconds: The time limit of a case; None for the default.
        worker_memory: How many bytes a process may use; None for the default.
        shared: Whether the processes are kept for the next run of the same pair.
        require: The levels that must be equivalent; None for those of the pair's kind.
        all_cases: Whether every check runs all of its cases after a difference, too.
        fail_fast: Whether the run ends at the first difference at a required level.
        profile_run: Whether the time of the processes is counted by part of the judging.
        remembered: Whether the run begins with the pair's last counterexamples, and remembers those that it shows.
        shard: The number of the part of the run, from 1, and how many parts there are; None for the whole run.
        domain: The cases that the original is meant for: an expression, or the import string of a function of a case; a
            function itself if the pair runs in this process. None if that is to be discovered.
    """

    profile: str = "gate"
    checks: Sequence[str] | None = None
    exclude: Sequence[str] = ()
    seed: int = 0
    dtypes: Sequence[str] = DTYPES
    require_backend: Sequence[str] = ()
    max_memory_ratio: float | None = None
    deviations: Mapping[str, str | Deviation] = field(default_factory=dict)
    strict: bool = False
    max_seconds: float | None = None
    jobs: int | None = 1
    case_seconds: float | None = None
    worker_memory: float | None = None
    shared: bool = False
    require: Sequence[str] | None = None
    domain: str | Callable[..., Any] | None = None
    all_cases: bool = False
    fail_fast: bool = False
    profile_run: bool = False
    remembered: bool = False
    shard: tuple[int, int] | None = None

    @property
    def of_plan(self) -> dict[str, Any]:
        """The arguments of the question `plan`."""
        return {
            "checks": None if self.checks is None else list(self.checks),
            "exclude": list(self.exclude),
            "profile": self.profile,
            "seed": self.seed,
            "dtypes": list(self.dtypes),
            "require_backend": list(self.require_backend),
            "max_memory_ratio": self.max_memory_ratio,
            "domain": self.domain,
        }
