"""The results of many candidates for one original: a verdict each, the times of those that are equivalent, and ranks."""

import json
from collections.abc import Mapping, Sequence
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
        report: The report of its run; None if nothing could be judged, or if there is an entry.
        read: Its entry with full feedback, as another process wrote it; None if it was judged by this one.
        problem: Why nothing could be judged.
        reason: The id in `EXITS` of that.
        timed: Its times; None if it was not timed.
        untimed: Why an equivalent candidate was not timed.
        seconds: How long all of that took.
    """

    given: str
    candidate: str = ""
    report: Report | None = None
    read: Mapping[str, Any] | None = None
    problem: str = ""
    reason: str = "unusable"
    timed: Timed | None = None
    untimed: str = ""
    seconds: float = 0.0

    @classmethod
    def of_entry(cls, entry: Mapping[str, Any]) -> "Judged":
        """The candidate of an entry with full feedback.

        Args:
            entry: One of the entries of `dumps`.

        Returns:
            A candidate whose entry is the same again.
        """
        timed = entry["timed"]
        names = ("given", "candidate", "problem", "untimed", "seconds")
        return cls(
            **{name: entry[name] for name in names},
            read=entry if "levels" in entry else None,
            reason=entry["exit_reason"],
            timed=None if timed is None else Timed(**timed),
        )

    @property
    def facts(self) -> Mapping[str, Any] | None:
        """What its run says of it, as its entry has it; None if nothing could be judged."""
        if self.read is not None:
            return self.read
        of = self.report
        if of is None:
            return None
        return {
            "verdict": of.verdict,
            "exit_reason": exit_reason(of),
            "levels": dict(of.levels),
            "checks": {result.name: result.outcome for result in of.results},
            "differences": differences(of),
            "findings": list(of.findings),
            "survived": list(of.survived),
        }

    @property
    def verdict(self) -> str:
        """The verdict of its run; `different` as well if timed calls differ, and `not judged` without a run."""
        if (facts := self.facts) is None:
            return "not judged"
        return "different" if self._differs_timed else str(facts["verdict"])

    @property
    def exit_reason(self) -> str:
        """The id in `EXITS` of the exit status that it would have alone."""
        if (facts := self.facts) is None:
            return self.reason
        return "different" if self._differs_timed else str(facts["exit_reason"])

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
        if (facts := self.facts) is None:
            return self.problem
        if self.timed is not None and self._differs_timed:
            return f"a timed call: {self.timed.differs}"
        for one in facts["differences"]:
            return f"{_name_of(one)} on {one['case']['id']}: {one['message'].strip().partition(chr(10))[0]}"
        return next(iter(facts["findings"]), "" if self.status == 0 else EXITS[self.exit_reason][1])

    @property
    def differing(self) -> list[str]:
        """The names of the findings that are different, as `check` or `check.finding`, in the order of the checks."""
        facts = self.facts or {"checks": {}, "differences": []}
        names: dict[str, list[str]] = {name: [] for name in facts["checks"]}
        for one in facts["differences"]:
            names.setdefault(one["check"], []).append(_name_of(one))
        for name, outcome in facts["checks"].items():
            names[name] = names[name] or [name] * (outcome == "different")
        return [name for of_check in names.values() for name in of_check]

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
        if feedback == "none" or (facts := self.facts) is None:
            return shown
        shown |= {name: facts[name] for name in ("levels", "checks")}
        if feedback == "full":
            shown |= {name: facts[name] for name in ("differences", "findings", "survived")}
        return shown


def _name_of(difference: Mapping[str, Any]) -> str:
    return ".".join(part for part in (difference["check"], difference["finding"]) if part)


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
