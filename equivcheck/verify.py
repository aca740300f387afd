"""A run: which checks, until when, what came of each, and the report that says so."""

import sys
import time
import types
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from equivcheck.cases import Case
from equivcheck.checks import CHECKS, Check
from equivcheck.comparison import Mismatch
from equivcheck.crew import Workers, crew, jobs_for
from equivcheck.dtypes import usable_dtypes
from equivcheck.errors import UsageError
from equivcheck.kinds import resolve
from equivcheck.outcome import result_of
from equivcheck.provenance import device_name, environment, sources
from equivcheck.report.model import CheckResult, Report, Sensitivity
from equivcheck.search import Search
from equivcheck.sensitivity import sensitivity_of
from equivcheck.subject import Subject

__all__ = ["PROFILES", "Listener", "assert_equivalent", "choose", "replay", "verify"]

PROFILES = ("quick", "gate", "thorough")
_WORTH_A_CREW = 300  # cases
_SHRINK_S = {"quick": 5.0, "gate": 10.0, "thorough": 60.0}


class Listener(Protocol):
    """Is told how a run gets on; `stage` is a check's name or `sensitivity`."""

    def progress(self, stage: str, done: int, total: int) -> None: ...

    def finished(self, result: CheckResult) -> None: ...


class _Silence:
    def progress(self, stage: str, done: int, total: int) -> None:
        pass

    def finished(self, result: CheckResult) -> None:
        pass


def choose(names: Sequence[str] | None, exclude: Iterable[str], kind: str) -> list[Check]:
    """The checks to run on a pair of this kind; a UsageError for a name that is none of theirs."""
    known = {check.name: check for check in CHECKS}
    for name in (*(names or ()), *exclude):
        if name not in known:
            raise UsageError(f"unknown check {name!r}: allowed are {', '.join(known)}")
    for name in names or ():
        if kind not in known[name].kinds:
            fitting = [c.name for c in CHECKS if kind in c.kinds]
            raise UsageError(f"check {name!r} does not apply to a {kind}: allowed are {', '.join(fitting)}")
    chosen = [c for c in CHECKS if kind in c.kinds and (not names or c.name in names) and c.name not in set(exclude)]
    if not chosen:
        raise UsageError("no check is left: every one that applies was excluded; leave one in")
    return chosen


def verify(
    reference: Any,
    candidate: Any,
    *,
    kind: str = "auto",
    device: str = "auto",
    profile: str = "gate",
    checks: Sequence[str] | None = None,
    exclude: Iterable[str] = (),
    seed: int = 0,
    max_seconds: float | None = None,
    deviations: Mapping[str, str] | None = None,
    jobs: int | None = 1,
    listener: Listener | None = None,
) -> Report:
    """Whether `candidate` is the same attention as `reference`, as a Report.

    Both are objects or import strings; `kind` is module, function, model, replacement or auto; `profile` quick, gate or
    thorough. `deviations` maps names of checks to the reason why a difference is accepted. After `max_seconds`, or when
    interrupted, the report says that it is partial. `jobs` processes share the work of a pair that is given as import
    strings, None for as many as suit the machine; the cases are the same. Raises UsageError where the pair cannot be judged.
    """
    if profile not in PROFILES:
        raise UsageError(f"unknown profile {profile!r}: allowed are {', '.join(PROFILES)}")
    accepted = _accepted(deviations)
    subject = resolve(reference, candidate, kind=kind, device=device)
    chosen = choose(checks, tuple(exclude), subject.kind)
    heard = listener or _Silence()
    began = time.monotonic()
    until = began + max_seconds if max_seconds is not None else float("inf")
    results: list[CheckResult] = []
    searches: list[Search] = []
    ended: list[Search] = []
    sensitivity = Sensitivity()
    complete = True
    try:
        dtypes, refused = usable_dtypes(subject)
        searches = [_search(check, subject, profile, until, heard) for check in chosen]
        wanted = jobs
        if wanted is None:  # other processes take seconds to start
            wanted = jobs_for(subject.device) if sum(search.planned for search in searches) >= _WORTH_A_CREW else 1
        with crew(reference, candidate, subject, wanted, {}) as workers:
            workers.begin(searches, dtypes, seed)
            for search in searches:
                began_check = time.monotonic()
                try:
                    result = _hold(search, dtypes, refused, seed, workers)
                except KeyboardInterrupt:
                    # a difference that was already seen must not be lost with the rest
                    if search.failed:
                        results.append(_declared(result_of(search, refused, time.monotonic() - began_check), accepted))
                    raise
                results.append(_declared(result, accepted))
                ended.append(search)
                heard.finished(results[-1])
                complete = complete and not search.stopped
            spent = time.monotonic() - began
            # a check with a declared deviation stops where it differs: what it would have noticed cannot be asked of it
            noticing = [s for s, r in zip(ended, results, strict=True) if r.outcome != "deviation"]
            plant_until = min(until, time.monotonic() + max(spent, 20.0))
            sensitivity = sensitivity_of(
                subject, noticing, profile, seed, plant_until, partial(heard.progress, "sensitivity"), workers
            )
        complete = complete and time.monotonic() <= until
    except KeyboardInterrupt:
        complete = False
    return Report(
        reference=subject.reference_name,
        candidate=subject.candidate_name,
        kind=subject.kind,
        device=device_name(subject.device),
        profile=profile,
        seed=seed,
        results=tuple(results),
        sensitivity=sensitivity,
        complete=complete,
        seconds=time.monotonic() - began,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=environment(subject.device),
        sources=sources(subject),
    )


def _accepted(deviations: Mapping[str, str] | None) -> dict[str, str]:
    accepted = dict(deviations or {})
    known = [check.name for check in CHECKS]
    for name, reason in accepted.items():
        if name not in known:
            raise UsageError(f"unknown deviation {name!r}: it is the name of a check, one of {', '.join(known)}")
        if not str(reason).strip():
            raise UsageError(f"deviation {name!r} has no reason: say why the difference is accepted")
    return accepted


def _declared(result: CheckResult, accepted: Mapping[str, str]) -> CheckResult:
    reason = accepted.get(result.name)
    if reason is None:
        return result
    if result.outcome == "different":
        return replace(result, outcome="deviation", detail=f"declared: {reason}")
    return replace(result, notes=(*result.notes, f"the declared deviation no longer shows: {reason}"))


def _search(check: Check, subject: Subject, profile: str, until: float, heard: Listener) -> Search:
    planned = check.cases[profile]

    def told(done: int) -> None:
        heard.progress(check.name, done, planned)

    return Search(check, subject, planned, _SHRINK_S[profile], until, told)


def _hold(
    search: Search, dtypes: Sequence[str], refused: Mapping[str, str], seed: int, workers: Workers
) -> CheckResult:
    began = time.monotonic()
    search.told(0)
    if not workers.run(search, dtypes, seed):
        return CheckResult(
            search.check.name, "unsupported", 0, detail="no dtype is left", unsupported=tuple(refused.values())
        )
    return result_of(search, refused, time.monotonic() - began)


def replay(
    reference: Any,
    candidate: Any,
    case_id: str,
    *,
    kind: str = "auto",
    device: str = "auto",
    checks: Sequence[str] | None = None,
) -> tuple[CheckResult, ...]:
    """Run the checks on one case again; the detail of each result has the whole comparison."""
    case = Case.parse(case_id)
    subject = resolve(reference, candidate, kind=kind, device=device)
    results = []
    for check in choose(checks, (), subject.kind):
        search = Search(check, subject, 1, 0.0, float("inf"), lambda _: None)
        began = time.monotonic()
        with suppress(Mismatch):
            search.visit(case)
        result = result_of(search, {}, time.monotonic() - began)
        told = result.counterexample.message if result.counterexample else "within budget"
        results.append(replace(result, detail=told))
    return tuple(results)


def assert_equivalent(reference: Any, candidate: Any, **options: Any) -> Report:
    """The report of `verify` where the pair is equivalent; else a Mismatch that tells the counterexamples."""
    report = verify(reference, candidate, **options)
    if report.equivalent:
        return report
    told = [
        f"{result.name}: {result.counterexample.message}\n  case {result.counterexample.case}\n  {result.counterexample.replay}"
        for result in report.results
        if result.outcome == "different" and result.counterexample
    ]
    if report.sensitivity.survived:
        told.append(f"insensitive: the planted faults {', '.join(report.sensitivity.survived)} were not seen")
    if not report.complete:
        told.append("partial: the run did not finish")
    worst = max((result.worst_ratio or 0.0 for result in report.results), default=0.0)
    raise Mismatch(f"{report.candidate} is {report.verdict}\n" + "\n".join(told), ratio=worst)


class _CallableModule(types.ModuleType):
    """`equivcheck.verify` names this module once somebody has imported it by name, and the function until then: call either."""

    def __call__(self, reference: Any, candidate: Any, **options: Any) -> Report:
        return verify(reference, candidate, **options)


sys.modules[__name__].__class__ = _CallableModule
