"""The results of many candidates for one original: a verdict each, the times of those that are equivalent, and ranks."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from equivcheck.report.codec import plain
from equivcheck.report.differences import differences
from equivcheck.report.exits import EXITS, exit_reason
from equivcheck.report.model import Report

__all__ = ["FEEDBACK", "Judged", "Timed", "dumps", "ranked", "status_of"]

FEEDBACK = ("none", "verdict", "full")
"""How much is shown of a counterexample: nothing but the verdict; which levels and checks differ; all of it."""


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Original and candidate timed in turn in one process, on inputs that no call had before.

    Attributes:
        case: The id of the case that has the sizes; its weights are those of all calls.
        speed_up: The original's time over the candidate's.
        low: The lower end of its 95 % interval.
        high: The upper end.
        reference_ms: The median time of the original, in ms.
        candidate_ms: The median time of the candidate, in ms.
        calls: How many calls of each were timed or served as warm-up.
        compared: How many of the candidate's calls, chosen at random, were compared with the oracle.
        differs: The first difference among these in words; empty if there is none.
    """

    case: str
    speed_up: float
    low: float
    high: float
    reference_ms: float
    candidate_ms: float
    calls: int
    compared: int
    differs: str = ""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One candidate, and what is known of it.

    Attributes:
        given: The candidate as it was given: an import string, or a file.
        candidate: The import string; empty if there is none.
        report: The report of its run; None if nothing could be judged.
        problem: Why nothing could be judged.
        reason: The id in `EXITS` of that.
        timed: Its times; None if it was not timed.
        untimed: Why an equivalent candidate was not timed.
        seconds: How long all of that took.
    """

    given: str
    candidate: str = ""
    report: Report | None = None
    problem: str = ""
    reason: str = "unusable"
    timed: Timed | None = None
    untimed: str = ""
    seconds: float = 0.0

    @property
    def verdict(self) -> str:
        """The verdict of its run; `different` as well if timed calls differ, and `not judged` without a run."""
        if self.report is None:
            return "not judged"
        return "different" if self._differs_timed else self.report.verdict

    @property
    def exit_reason(self) -> str:
        """The id in `EXITS` of the exit status that it would have alone."""
        if self.report is None:
            return self.reason
        return "different" if self._differs_timed else exit_reason(self.report)

    @property
    def status(self) -> int:
        """The exit status that it would have alone."""
        return EXITS[self.exit_reason][0]

    @property
    def _differs_timed(self) -> bool:
        return self.timed is not None and bool(self.timed.differs)

    @property
    def first_finding(self) -> str:
        """The first difference in one sentence, or why nothing could be judged; empty if there is neither."""
        if self.report is None:
            return self.problem
        if self.timed is not None and self._differs_timed:
            return f"a timed call: {self.timed.differs}"
        for one in differences(self.report):
            name = ".".join(part for part in (one["check"], one["finding"]) if part)
            return f"{name} on {one['case']['id']}: {one['message'].strip().partition(chr(10))[0]}"
        return next(iter(self.report.findings), "" if self.status == 0 else EXITS[self.exit_reason][1])

    def entry(self, feedback: str, rank: int | None) -> dict[str, Any]:
        """The candidate for a file, with as much of its counterexamples as `feedback` says."""
        shown: dict[str, Any] = {
            "given": self.given,
            "candidate": self.candidate,
            "rank": rank,
            "verdict": self.verdict,
            "exit_status": self.status,
            "exit_reason": self.exit_reason,
            "problem": self.problem,
            "seconds": round(self.seconds, 3),
            "timed": None,
            "untimed": self.untimed,
        }
        if self.timed is not None:
            shown["timed"] = asdict(self.timed)
            if feedback != "full":
                del shown["timed"]["differs"]
        if feedback == "none" or self.report is None:
            return shown
        of = self.report
        shown["levels"] = dict(of.levels)
        shown["checks"] = {result.name: result.outcome for result in of.results}
        if feedback == "full":
            shown["differences"] = differences(of)
            shown["findings"] = list(of.findings)
            shown["survived"] = list(of.survived)
        return shown


def ranked(judged: Sequence[Judged]) -> list[tuple[int | None, Judged]]:
    """The candidates with their ranks: the equivalent ones by time, those without a time behind them, then the others.

    The rank follows from the ratio of the original's time to the candidate's, as both are of one paired run.
    """
    good = [one for one in judged if one.status == 0]
    timed = sorted((one for one in good if one.timed is not None), key=lambda one: -_speed_up(one))
    rest = sorted((one for one in judged if one.status), key=lambda one: one.status)
    places: list[tuple[int | None, Judged]] = [*enumerate(timed, 1)]
    return [*places, *((None, one) for one in good if one.timed is None), *((None, one) for one in rest)]


def _speed_up(one: Judged) -> float:
    return one.timed.speed_up if one.timed is not None else 0.0


def status_of(judged: Sequence[Judged], *, complete: bool = True) -> int:
    """The exit status of all: 1 if one is different or insensitive, else 2 if one was not judged, else 0."""
    statuses = {one.status for one in judged}
    return 1 if 1 in statuses else 2 if 2 in statuses or not judged or not complete else 0


def dumps(original: str, judged: Sequence[Judged], feedback: str, *, complete: bool = True) -> str:
    """All candidates as strict JSON, in the order in which they are ranked."""
    content = {
        "format": "equivcheck judge 1",
        "original": original,
        "feedback": feedback,
        "complete": complete,
        "exit_status": status_of(judged, complete=complete),
        "candidates": [one.entry(feedback, rank) for rank, one in ranked(judged)],
    }
    return json.dumps(plain(content), indent=2, allow_nan=False) + "\n"
