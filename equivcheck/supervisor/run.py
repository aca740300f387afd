"""A run: its pieces handed out, their outcomes taken in the order of the plan, what was planted, and the report of it all."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Protocol

from equivcheck.report.deviations import accepted_of, declared
from equivcheck.report.model import CheckResult, Deviation, Package, Report, Sensitivity
from equivcheck.report.outcomes import Searched, check_result, kernels_told
from equivcheck.supervisor.early import death_result
from equivcheck.supervisor.pieces import Piece
from equivcheck.supervisor.pool import Interrupted, Lost

__all__ = ["Listener", "Run", "Workers"]

_PLANT_S = 120.0  # where planting takes five, on a machine that has nothing else to do


class Listener(Protocol):
    """Is told how a run gets on; `stage` is a check's name or `sensitivity`."""

    def progress(self, stage: str, done: int, total: int) -> None: ...

    def finished(self, result: CheckResult) -> None: ...


class Workers(Protocol):
    """Whoever runs the pair: processes of its own, or the caller's."""

    @property
    def gaps(self) -> list[str]: ...

    @property
    def sealed(self) -> bool: ...

    def open(self) -> Mapping[str, Any]:
        """Load the pair; its kind, names and device."""

    def answer(self, name: str, **arguments: Any) -> Any:
        """The answer to one question."""

    def ready(self, **arguments: Any) -> None:
        """Prepare every process for the checks of the plan."""

    def begin(self, pieces: Sequence[Piece], heard: Callable[[str], None]) -> None:
        """Be given all pieces; `heard` is given the check of each case that is done."""

    def finish(self, pieces: Sequence[Piece]) -> None:
        """Return when these are done, up to the first that fails."""

    def make_small(self, piece: Piece, *, spend: bool) -> None:
        """See that a piece ends with a counterexample that is confirmed."""

    def ran(self, checks: Mapping[str, Mapping[str, Any]]) -> None:
        """Tell every process which cases the checks judged."""

    def sightings(self, faults: Sequence[str], until: float, told: Callable[[int], None]) -> Iterator[str | None]:
        """Where each fault is seen first; `""` where it is not, None where that is not known."""

    def seen(self) -> list[Mapping[str, Any]]:
        """What foreign code has used in other processes than the one that answers."""

    def look_at_original(self, cases: Sequence[str]) -> None:
        """Have the original run on these cases where the candidate is not imported, beside what follows."""

    def findings(self) -> tuple[list[str], list[str]]:
        """What makes the comparison void, and what is worth a note, of what foreign code did beside its results."""


@dataclass
class Run:
    """One run of checks on a pair; `report` tells of it at any time.

    `began` and `until` are times of `time.monotonic`; `keep` is given a report before the first check, and after every one.
    """

    workers: Workers
    reference: str
    candidate: str
    kind: str
    device: str
    asked: Mapping[str, Any]  # of the plan: checks, exclude, profile, seed, dtypes, require_backend
    deviations: Mapping[str, str | Deviation]
    strict: bool
    began: float
    until: float
    heard: Listener
    keep: Callable[[Report], None]
    results: list[CheckResult] = field(default_factory=list)
    sensitivity: Sensitivity = field(default_factory=Sensitivity)
    findings: tuple[str, ...] = ()
    complete: bool = True
    _plan: Mapping[str, Any] = field(default_factory=dict)
    _accepted: Mapping[str, Deviation] = field(default_factory=dict)
    _searched: dict[str, Searched] = field(default_factory=dict)
    _pieces: dict[str, list[Piece]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    def report(self, complete: bool) -> Report:
        """What has been established so far."""
        p = self._plan
        seen = {result.name for result in self.results if result.outcome == "deviation"}
        return Report(
            reference=self.reference,
            candidate=self.candidate,
            kind=self.kind,
            device=p.get("device_name", self.device),
            profile=self.asked["profile"],
            seed=self.asked["seed"],
            results=tuple(self.results),
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
            kernels=kernels_told(self.results),
            strict=self.strict,
            options_not_judged=tuple(p.get("options_not_judged", ())),
            deviations=tuple(replace(d, observed=d.name in seen) for d in self._accepted.values()),
            findings=self.findings,
            sealed=self.workers.sealed,
        )

    def through(self) -> Report:
        """Have the workers do it, and return the report: a partial one after `until`, and where it is interrupted."""
        try:
            if self._load():
                self._judge()
                self.workers.look_at_original(self._cases())
                self._plant()
                self._look_back()
                in_time = time.monotonic() <= self.until and not self.sensitivity.untried
                self.complete = self.complete and in_time and not self.workers.gaps
        except (KeyboardInterrupt, Interrupted):
            self._rescue()
            self.complete = False
        return self.report(self.complete)

    def _load(self) -> bool:
        """Load the pair and make the plan; False where the candidate's process died of that, which is a difference."""
        try:
            loaded = self.workers.open()
            self.kind, self.device = loaded["kind"], loaded["device"]
            self.reference, self.candidate = loaded["reference"], loaded["candidate"]
            self._plan = self.workers.answer("plan", **self.asked)
        except Lost as lost:
            pair = self.reference, self.candidate
            self.results.append(death_result(lost, *pair, kind=self.kind, device=self.device))
            return False
        self._accepted = accepted_of(self.deviations, self._plan["known"])
        self.keep(self.report(complete=False))  # nothing is left of an older report from here on
        return True

    # --- checks -------------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        checks = self._plan["checks"]
        self._pieces = {c["name"]: [Piece(c["name"], number) for number in range(c["classes"])] for c in checks}
        planned = {c["name"]: c["planned"] for c in checks}
        self.workers.ready(
            checks=[c["name"] for c in checks],
            require_backend=self.asked["require_backend"],
            profile=self.asked["profile"],
            seed=self.asked["seed"],
            asked=len(self.asked["dtypes"]),
            usable=self._plan["usable"],
        )

        def heard(check: str) -> None:
            self._counts[check] = self._counts.get(check, 0) + 1
            self.heard.progress(check, min(self._counts[check], planned[check]), planned[check])

        # what takes longest must not start last
        in_order = sorted(checks, key=lambda c: not c["dear"])
        self.workers.begin([piece for c in in_order for piece in self._pieces[c["name"]]], heard)
        spent = False
        for check in checks:
            self.heard.progress(check["name"], self._counts.get(check["name"], 0), check["planned"])
            pieces = self._pieces[check["name"]]
            self.workers.finish(pieces)
            failing = next((piece for piece in pieces if piece.done and piece.searched.minimal is not None), None)
            if failing is not None:
                died = next(iter(failing.searched.failed.values())).died
                self.workers.make_small(failing, spend=not spent)
                spent = spent or bool(died)
            self._take(check, pieces)
            self.heard.finished(self.results[-1])
            self.keep(self.report(complete=False))
        notes = self._plan["notes"]
        if self.results and notes:
            self.results[0] = replace(self.results[0], notes=(*notes, *self.results[0].notes))

    def _take(self, check: Mapping[str, Any], pieces: Sequence[Piece]) -> None:
        """Make the result of a check of what its pieces have come to."""
        name = check["name"]
        searched = Searched()
        for piece in pieces:
            searched.take(piece.searched)
            if piece.searched.minimal is not None:
                break
        self._searched[name] = searched
        if not pieces:
            refused = tuple(self._plan["refused"].values())
            self.results.append(CheckResult(name, "unsupported", 0, detail="no dtype is left", unsupported=refused))
            return
        if searched.minimal is not None and not searched.failed[searched.minimal].died:
            others = [case for case, failed in searched.failed.items() if case != searched.minimal and not failed.died]
            searched.explained = self._explained(name, [searched.minimal, *others])
        self._add_result(check, searched)
        self.complete = self.complete and not searched.stopped

    def _add_result(self, check: Mapping[str, Any], searched: Searched) -> None:
        result = check_result(
            check["name"],
            searched,
            planned=check["planned"],
            judges=check["judges"],
            replay=check["replay"],
            refused=self._plan["refused"],
        )
        self.results.append(declared(result, self._accepted))

    def _explained(self, check: str, cases: Sequence[str]) -> str:
        try:
            return str(self.workers.answer("explain", check=check, cases=cases))
        except Lost:
            return ""

    def _rescue(self) -> None:
        """Keep a difference that was already seen where the run is cut short."""
        done = {result.name for result in self.results}
        for check in self._plan.get("checks", ()):
            pieces = self._pieces.get(check["name"], ())
            if check["name"] not in done and any(piece.searched.failed for piece in pieces):
                for piece in pieces:
                    piece.searched.minimal = next(reversed(piece.searched.failed), None)
                searched = Searched()
                for piece in pieces:
                    searched.take(piece.searched)
                self._add_result(check, searched)

    # --- planted faults, and what was done beside the results ---------------------------------------------------------

    def _plant(self) -> None:
        began = time.monotonic()
        planned = {c["name"]: c["planned"] for c in self._plan["checks"]}
        # a check with a declared deviation stops where it differs: what it would have noticed cannot be asked of it
        ran = {
            result.name: {
                "planned": planned[result.name],
                "cases": [*(o.case for o in s.passed.values() if o.judged), *s.failed],
                "failed": bool(s.failed),
            }
            for result in self.results
            if result.outcome != "deviation" and (s := self._searched[result.name]).cases
        }
        ran = {name: of for name, of in ran.items() if of["cases"]}
        # as long again, for faults that nothing sees; to run out of it where all would be seen calls a right pair insensitive
        until = min(self.until, began + max(began - self.began, _PLANT_S))
        try:
            self.workers.ran(ran)
            faults, without_effect = self.workers.answer("faults")
        except Lost as lost:
            self.workers.gaps.append(f"planted faults: the original {lost.death.told}")
            return

        def told(done: int) -> None:
            self.heard.progress("sensitivity", done, len(faults))

        survived: list[str] = []
        untried: list[str] = []
        caught_by: dict[str, str] = {}
        for fault, seen in zip(faults, self.workers.sightings(faults, until, told), strict=True):
            if seen:
                caught_by[fault] = seen
            elif seen is None:
                untried.append(fault)
            else:
                self._unseen(fault, survived, untried, without_effect)
        self.sensitivity = Sensitivity(
            tuple(fault for fault in faults if fault in caught_by or fault in survived),
            tuple(survived),
            caught_by,
            time.monotonic() - began,
            without_effect=tuple(sorted(without_effect)),
            untried=tuple(untried),
        )

    def _unseen(self, fault: str, survived: list[str], untried: list[str], without_effect: list[str]) -> None:
        """Find out what a fault is that was not seen: none around this original, or one that has survived."""
        try:
            (without_effect if self.workers.answer("changes_nothing", fault=fault) else survived).append(fault)
        except Lost as lost:
            untried.append(fault)
            self.workers.gaps.append(f"the planted fault {fault}: the original {lost.told}")

    def _look_back(self) -> None:
        covering = ("files", "packages", "not_covered")
        before = {name: self._plan[name] for name in covering}
        try:
            self._plan = {**self._plan, **self.workers.answer("cover", seen=self.workers.seen(), before=before)}
            findings, notes = self.workers.findings()
        except Lost as lost:
            self.workers.gaps.append(f"the look back at the run: a process {lost.death.told}")
            return
        self.findings = tuple(findings)
        notes = [*(self._plan["apart"] if self.workers.sealed else ()), *notes]
        if self.results and notes:
            self.results[0] = replace(self.results[0], notes=(*self.results[0].notes, *notes))

    def _cases(self) -> list[str]:
        """Three cases of this run on which the original is looked at: the first, the middle and the last that passed by value."""
        for name in ("gradients", "logits", "output", *self._searched):
            passed = list(self._searched[name].passed) if name in self._searched else []
            if passed:
                return [passed[at] for at in sorted({0, len(passed) // 2, len(passed) - 1})]
        return []
