"""A run: its checks one after the other, until when, what has come of them so far, and the report that says so."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Protocol

from equivcheck.checks import Check
from equivcheck.crew import Workers
from equivcheck.deviations import declared
from equivcheck.dtypes import usable_dtypes
from equivcheck.errors import UsageError
from equivcheck.explaining import explanation
from equivcheck.implementation import defined_at
from equivcheck.module_files import made_twice
from equivcheck.outcome import kernels_told, result_of
from equivcheck.plan import SHRINK_S, planned_cases
from equivcheck.planting import own_in_disguise
from equivcheck.provenance import device_name, digests, environment, files
from equivcheck.report.model import CheckResult, Deviation, Report, Sensitivity
from equivcheck.search import Search
from equivcheck.sensitivity import sensitivity_of
from equivcheck.subject import Subject

__all__ = ["Listener", "Run", "explain"]

_PLANT_S = 120.0  # where planting takes five, on a machine that has nothing else to do


class Listener(Protocol):
    """Is told how a run gets on; `stage` is a check's name or `sensitivity`."""

    def progress(self, stage: str, done: int, total: int) -> None: ...

    def finished(self, result: CheckResult) -> None: ...


@dataclass
class Run:
    """One run of these checks on a pair; `report` tells of it at any time.

    `began` and `until` are times of `time.monotonic`; `required` has the dtypes in which something must be judged; `keep` is
    given a report before the first check, and after every one.
    """

    subject: Subject
    checks: Sequence[Check]
    profile: str
    seed: int
    dtypes: Sequence[str]
    required: frozenset[str]
    accepted: Mapping[str, Deviation]
    strict: bool
    began: float
    until: float
    heard: Listener
    keep: Callable[[Report], None]
    root: Path  # the working folder in which the run began: the pair may have changed it
    results: list[CheckResult] = field(default_factory=list)
    ended: list[Search] = field(default_factory=list)
    sensitivity: Sensitivity = field(default_factory=Sensitivity)
    complete: bool = True

    def __post_init__(self) -> None:
        self.made_of = files(
            self.subject, root=self.root
        )  # as they are now: what is edited while it runs is not what ran

    def report(self, complete: bool) -> Report:
        """What has been established so far."""
        seen = {result.name for result in self.results if result.outcome == "deviation"}
        file, line = defined_at(self.subject.candidate, self.root) or (None, None)
        return Report(
            reference=self.subject.reference_name,
            candidate=self.subject.candidate_name,
            kind=self.subject.kind,
            device=device_name(self.subject.device),
            profile=self.profile,
            seed=self.seed,
            results=tuple(self.results),
            sensitivity=self.sensitivity,
            complete=complete,
            seconds=time.monotonic() - self.began,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            environment=environment(self.subject.device),
            sources=digests(self.made_of),
            files=self.made_of,
            candidate_file=file,
            candidate_line=line,
            kernels=kernels_told(self.results),
            strict=self.strict,
            deviations=tuple(replace(d, observed=d.name in seen) for d in self.accepted.values()),
        )

    def through(self, workers: Workers) -> Report:
        """Have the workers do it, and return the report: a partial one after `until`, and where it is interrupted."""
        try:
            usable, refused = usable_dtypes(self.subject, self.dtypes)
            if missing := sorted(self.required - set(usable)):
                raise UsageError(
                    f"--require-backend: the pair does not run in {', '.join(missing)}, so nothing can be judged there"
                )
            self.keep(self.report(complete=False))  # nothing is left of an older report from here on
            self._judge(workers, usable, refused)
            self._plant(workers, usable)
            self.complete = self.complete and time.monotonic() <= self.until
        except KeyboardInterrupt:
            self.complete = False
        return self.report(self.complete)

    def _judge(self, workers: Workers, usable: Sequence[str], refused: Mapping[str, str]) -> None:
        searches = [self._search(check, workers.jobs) for check in self.checks]
        workers.begin(searches, usable, self.seed)
        for search in searches:
            began = time.monotonic()
            try:
                result = self._hold(search, usable, refused, workers)
            except KeyboardInterrupt:
                # a difference that was already seen must not be lost with the rest
                if search.failed:
                    result = result_of(search, refused, time.monotonic() - began)
                    self.results.append(declared(result, self.accepted))
                raise
            self.results.append(declared(result, self.accepted))
            self.ended.append(search)
            self.heard.finished(self.results[-1])
            self.keep(self.report(complete=False))
            self.complete = self.complete and not search.stopped
        notes = (*self.subject.notes, *made_twice(), *_not_planted(self.subject, usable))
        if self.results and notes:
            self.results[0] = replace(self.results[0], notes=(*notes, *self.results[0].notes))

    def _search(self, check: Check, jobs: int) -> Search:
        planned = planned_cases(check, subject=self.subject, profile=self.profile, dtypes=len(self.dtypes), jobs=jobs)

        def told(done: int) -> None:
            self.heard.progress(check.name, done, planned)

        return Search(check, self.subject, planned, SHRINK_S[self.profile], self.until, told)

    def _hold(self, search: Search, usable: Sequence[str], refused: Mapping[str, str], workers: Workers) -> CheckResult:
        began = time.monotonic()
        search.told(0)
        if not workers.run(search, usable, self.seed):
            return CheckResult(
                search.check.name, "unsupported", 0, detail="no dtype is left", unsupported=tuple(refused.values())
            )
        explain(search)
        # of all processes; that this one waited for them says little where they work ahead
        return result_of(search, refused, max(search.seconds, time.monotonic() - began if workers.jobs == 1 else 0.0))

    def _plant(self, workers: Workers, usable: Sequence[str]) -> None:
        spent = time.monotonic() - self.began
        # a check with a declared deviation stops where it differs: what it would have noticed cannot be asked of it
        noticing = [s for s, r in zip(self.ended, self.results, strict=True) if r.outcome != "deviation"]
        # as long again, for faults that nothing sees; to run out of it where all would be seen calls a right pair insensitive
        until = min(self.until, time.monotonic() + max(spent, _PLANT_S))
        told = partial(self.heard.progress, "sensitivity")
        self.sensitivity = sensitivity_of(self.subject, noticing, self.profile, self.seed, until, told, workers, usable)


def _not_planted(subject: Subject, dtypes: Sequence[str]) -> Sequence[str]:
    """A note where the original rounds more coarsely than float64, and hides by that what some faults would show in it."""
    names = own_in_disguise(subject) if "float64" in dtypes else []
    if not names:
        return ()
    return (
        f"the original itself rounds so coarsely in float64 that these are not planted as faults: {', '.join(names)}",
    )


def explain(search: Search) -> None:
    """Have what failed in a search told as a misreading, where it is one."""
    if search.minimal is not None:
        others = [case for case in search.failed if case != search.minimal]
        search.explained = explanation(
            search.subject, [search.minimal, *others], gradients=search.check.name != "output"
        )
