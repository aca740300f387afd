"""A run: its checks one after the other, until when, what has come of them so far, and the report that says so."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from equivcheck.checks import Check
from equivcheck.covered import covered_by
from equivcheck.crew import Workers
from equivcheck.deviations import declared
from equivcheck.dtypes import usable_dtypes
from equivcheck.errors import UsageError
from equivcheck.explaining import explanation
from equivcheck.file_access import Access
from equivcheck.implementation import defined_at, modules_of
from equivcheck.module_files import made_twice
from equivcheck.outcome import kernels_told, result_of
from equivcheck.plan import SHRINK_S, planned_cases
from equivcheck.provenance import device_name, digests, environment
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
    access: Access
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
    results: list[CheckResult] = field(default_factory=list)
    ended: list[Search] = field(default_factory=list)
    sensitivity: Sensitivity = field(default_factory=Sensitivity)
    complete: bool = True
    judged: tuple[str, ...] = ()  # dtypes
    not_run: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # as it is now: what is edited while it runs is not what ran
        self.covered = covered_by(self.subject, self.access)

    def report(self, complete: bool) -> Report:
        """What has been established so far."""
        seen = {result.name for result in self.results if result.outcome == "deviation"}
        file, line = defined_at(self.subject.candidate, self.access.root) or (None, None)
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
            sources=digests(self.covered.files),
            files=self.covered.files,
            packages=self.covered.packages,
            not_covered=self.covered.not_covered,
            dtypes=self.judged,
            dtypes_not_run=self.not_run,
            candidate_file=file,
            candidate_line=line,
            kernels=kernels_told(self.results),
            strict=self.strict,
            options_not_judged=self.subject.reference_alone,
            deviations=tuple(replace(d, observed=d.name in seen) for d in self.accepted.values()),
        )

    def through(self, workers: Workers) -> Report:
        """Have the workers do it, and return the report: a partial one after `until`, and where it is interrupted."""
        try:
            usable, refused = usable_dtypes(self.subject, self.dtypes)
            self.judged = tuple(usable)
            self.not_run = {
                dtype: refused.get(dtype, "").removeprefix(f"{dtype}: ") or "the original does not run in it"
                for dtype in self.dtypes
                if dtype not in usable
            }
            if missing := sorted(self.required - set(usable)):
                raise UsageError(
                    f"--require-backend: the pair does not run in {', '.join(missing)}, so nothing can be judged there"
                )
            self.keep(self.report(complete=False))  # nothing is left of an older report from here on
            self._judge(workers, usable, refused)
            self._plant(workers, usable)
            in_time = time.monotonic() <= self.until and not self.sensitivity.untried
            self.complete = self.complete and in_time
        except KeyboardInterrupt:
            self.complete = False
        self.covered = self.covered.and_later(covered_by(self.subject, self.access))
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
        sources = {*modules_of(self.subject.reference), *modules_of(self.subject.candidate)}
        notes = (*self.subject.notes, *made_twice(sources))
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


def explain(search: Search) -> None:
    """Have what failed in a search told as a misreading, where it is one."""
    if search.minimal is not None:
        others = [case for case in search.failed if case != search.minimal]
        search.explained = explanation(
            search.subject, [search.minimal, *others], gradients=search.check.name != "output"
        )
