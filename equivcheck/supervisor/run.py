"""A run from the loading of the pair to the report: the checks, the planted faults, and the look back."""

import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from equivcheck.report.catalogue import SCREEN
from equivcheck.report.deviations import observed, parse_deviations
from equivcheck.report.levels import required_of
from equivcheck.report.model import CheckResult, Combinations, Deviation, Package, Report, Sensitivity
from equivcheck.report.shard import Shard, ShardCoverage, ShardFault
from equivcheck.supervisor.checking import Checking
from equivcheck.supervisor.deaths import Lost
from equivcheck.supervisor.early import death_result
from equivcheck.supervisor.first_difference import FirstDifference
from equivcheck.supervisor.interrupts import Interrupted
from equivcheck.supervisor.listener import Listener
from equivcheck.supervisor.memory import PairKey, memory_here
from equivcheck.supervisor.remembered import Remembered
from equivcheck.supervisor.request import Request
from equivcheck.supervisor.sensitivity import measure_sensitivity, tried_on_shard
from equivcheck.supervisor.workers_interface import Workers

__all__ = ["Run"]


@dataclass
class Run:
    """One run of checks on a pair; `report` describes it at any time.

    `began` and `until` are times of `time.monotonic`; `keep` is given a report before the first check and after each.
    """

    workers: Workers
    reference: str
    candidate: str
    kind: str
    device: str
    request: Request
    began: float
    until: float
    listener: Listener
    keep: Callable[[Report], None]
    results: list[CheckResult] = field(default_factory=list)
    sensitivity: Sensitivity = field(default_factory=Sensitivity)
    findings: tuple[str, ...] = ()
    coverage: Mapping[str, Mapping[str, Combinations]] = field(default_factory=dict)
    complete: bool = True
    _plan: Mapping[str, Any] = field(default_factory=dict)
    _accepted: Mapping[str, Deviation] = field(default_factory=dict)
    _faults: list[ShardFault] = field(default_factory=list)
    _left: list[ShardCoverage] = field(default_factory=list)
    _notes_after: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._checking = Checking(self.workers, self.request, self.listener, results=self.results)
        memory = memory_here() if self.request.remembered else None
        self._remembered = None if memory is None else Remembered(memory, self.workers, self.request, self.listener)

    def report(self, complete: bool) -> Report:
        """The report of the results so far."""
        p = self._plan
        seen = observed(self.results)
        return Report(
            reference=self.reference,
            candidate=self.candidate,
            kind=self.kind,
            device=p.get("device_name", self.device),
            profile=self.request.profile,
            seed=self.request.seed,
            results=tuple(self.results),
            remembered=None if self._remembered is None else tuple(self._remembered.results),
            sensitivity=self.sensitivity,
            complete=complete,
            seconds=time.monotonic() - self.began,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            environment=p.get("environment", {}),
            sources=p.get("sources", {}),
            files=p.get("files", {}),
            packages={name: Package(**package) for name, package in p.get("packages", {}).items()},
            not_covered=tuple(p.get("not_covered", ())),
            dtypes=tuple(p.get("usable", ())),
            dtypes_not_run=p.get("not_run", {}),
            candidate_file=p.get("candidate_file"),
            candidate_line=p.get("candidate_line"),
            kernels=self._checking.kernels(),
            strict=self.request.strict,
            require=tuple(self.request.require or ()),
            options_not_judged=tuple(p.get("options_not_judged", ())),
            deviations=tuple(replace(d, observed=d.name in seen) for d in self._accepted.values()),
            findings=self.findings,
            sealed=self.workers.sealed,
            domain=p.get("domain", ""),
            coverage=self.coverage,
            time_spent=self.workers.time_spent() if self.request.profile_run else None,
            shard=self._shard(),
        )

    def _shard(self) -> Shard | None:
        if self.request.shard is None:
            return None
        return self._checking.recorded(
            self.request.shard, faults=self._faults, coverage=self._left, notes_after=self._notes_after
        )

    def execute(self) -> Report:
        """Run all stages and return the report: a partial one after `until`, or if the run is interrupted."""
        try:
            if self._load():
                required = self.request.require or required_of(self.kind)
                self._checking.run(
                    self._plan, self._accepted, required, self._keep_so_far, partial(self._run_again, required)
                )
                self.workers.look_at_original(self._checking.cases_of_original())
                self.coverage = self._covered()
                self.sensitivity = self._sensitivity()
                self._look_back()
                in_time = time.monotonic() <= self.until and not self.sensitivity.untried
                self.complete = self._checking.complete and in_time and not self.workers.gaps
        except (KeyboardInterrupt, Interrupted):
            self._checking.rescue()
            self.complete = False
        if self._remembered is not None:
            self._remembered.remember(self.results)
        return self.report(self.complete)

    def _run_again(self, required: Collection[str], first_difference: FirstDifference) -> bool:
        """Run the remembered counterexamples again; whether the run ends with them."""
        if self._remembered is None:
            return False
        key = PairKey(self.reference, self.candidate, self.kind, self.device.partition(":")[0])
        ends = self._remembered.run(key, self._plan, self._accepted, required, first_difference)
        self._keep_so_far()
        return ends

    def _keep_so_far(self) -> None:
        self.keep(self.report(complete=False))

    def _covered(self) -> dict[str, dict[str, Combinations]]:
        """The pairs and triples of classes that the judged cases of each check meet."""
        judged = {name: ran["cases"] for name, ran in self._checking.judged().items() if self._plan["rows"].get(name)}
        if not judged:
            return {}
        try:
            if self.request.shard is not None:
                left = self.workers.answer("coverage_left", cases=self._checking.judged_by_class(judged))
                self._left = [ShardCoverage(**of_class) for of_class in left]
                return {}
            answer = self.workers.answer("coverage", cases=judged)
        except Lost as lost:
            self.workers.gaps.append(f"the coverage: a process {lost.death.description}")
            return {}
        return {
            check: {strength: Combinations(**counts) for strength, counts in of_check.items()}
            for check, of_check in answer.items()
        }

    def _sensitivity(self) -> Sensitivity:
        """The faults that this run would have seen; a run that is different where that counts plants none.

        A remembered case has no part in that, unless the run ends with it.
        """
        report = self.report(complete=True)
        drawn = report if self.request.fail_fast else replace(report, remembered=None)
        if drawn.verdict == "different":
            return Sensitivity(skipped="the run is different")
        if self.request.profile == SCREEN:
            return Sensitivity(skipped="a screen plants none")
        judged, limits = self._checking.judged(), {"run_began": self.began, "run_until": self.until}
        if self.request.shard is not None:
            none = {c["name"]: {"planned": c["planned"], "cases": [], "failed": False} for c in self._plan["checks"]}
            began = time.monotonic()
            self._faults = tried_on_shard(self.workers, self.request.shard, none | judged, self.listener, **limits)
            seconds = time.monotonic() - began
            return Sensitivity(seconds=seconds, skipped="it is judged over all shards, by equivcheck merge")
        return measure_sensitivity(self.workers, judged, self.listener, **limits)

    def _load(self) -> bool:
        """Load the pair and make the plan; False if the candidate's process died of that, which is a difference."""
        try:
            loaded = self.workers.open()
            self.kind, self.device = loaded["kind"], loaded["device"]
            self.reference, self.candidate = loaded["reference"], loaded["candidate"]
            self._plan = self._planned()
        except Lost as lost:
            pair = self.reference, self.candidate
            self.results.append(death_result(lost, *pair, kind=self.kind, device=self.device))
            return False
        self._accepted = parse_deviations(self.request.deviations)
        self._keep_so_far()  # nothing is left of an older report from here on
        return True

    def _planned(self) -> Mapping[str, Any]:
        """The plan; a side whose trials end a process is not tried: the checks see what it does.

        Raises:
            Lost: The process of the plan died without trials, too.
        """
        for tried in ("both", "original"):
            try:
                return self._asked_for_plan(tried)
            except Lost as lost:
                if lost.death.importing:
                    raise
        return self._asked_for_plan("none")

    def _asked_for_plan(self, tried: str) -> Mapping[str, Any]:
        plan: Mapping[str, Any] = self.workers.answer("plan", **self.request.of_plan, tried=tried)
        return plan

    def _look_back(self) -> None:
        covering = ("files", "packages", "not_covered")
        before = {name: self._plan[name] for name in covering}
        try:
            self._plan = {**self._plan, **self.workers.answer("cover", seen=self.workers.seen(), before=before)}
            findings, notes = self.workers.findings()
        except Lost as lost:
            self.workers.gaps.append(f"the look back at the run: a process {lost.death.description}")
            return
        self.findings = tuple(findings)
        self._notes_after = notes = [*(self._plan["apart"] if self.workers.sealed else ()), *notes]
        if self.results and notes:
            self.results[0] = replace(self.results[0], notes=(*self.results[0].notes, *notes))
