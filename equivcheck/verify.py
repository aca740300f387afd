"""A run: which checks, until when, what came of each, and the report that says so."""

import sys
import time
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, Protocol

from equivcheck.adaptation import Given
from equivcheck.cases import DTYPES, Case
from equivcheck.checks import Check
from equivcheck.checks.backend import requiring
from equivcheck.comparison import Mismatch
from equivcheck.crew import Workers, crew, jobs_for
from equivcheck.deviations import accepted_of, declared
from equivcheck.dtypes import usable_dtypes
from equivcheck.errors import UsageError
from equivcheck.explaining import explanation
from equivcheck.implementation import defined_at
from equivcheck.kinds import resolve
from equivcheck.outcome import kernels_told, result_of
from equivcheck.plan import PROFILES, SHRINK_S, choose, must_judge, planned_cases
from equivcheck.planting import own_in_disguise
from equivcheck.provenance import device_name, digests, environment, files
from equivcheck.report.model import CheckResult, Deviation, Report, Sensitivity
from equivcheck.search import Search
from equivcheck.sensitivity import sensitivity_of
from equivcheck.subject import Subject

__all__ = ["PROFILES", "Listener", "assert_equivalent", "choose", "replay", "verify"]

_WORTH_A_CREW = 300  # cases
_PLANT_S = 120.0  # where planting takes five, on a machine that has nothing else to do


class Listener(Protocol):
    """Is told how a run gets on; `stage` is a check's name or `sensitivity`."""

    def progress(self, stage: str, done: int, total: int) -> None: ...

    def finished(self, result: CheckResult) -> None: ...


class _Silence:
    def progress(self, stage: str, done: int, total: int) -> None:
        pass

    def finished(self, result: CheckResult) -> None:
        pass


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
    deviations: Mapping[str, str | Deviation] | None = None,
    dtypes: Sequence[str] | None = None,
    config: Given = None,
    inputs: Given = None,
    outputs: Given = None,
    transfer: Given = None,
    strict: bool = False,
    jobs: int | None = 1,
    require_backend: Sequence[str] = (),
    listener: Listener | None = None,
    keep: Callable[[Report], None] | None = None,
) -> Report:
    """Whether `candidate` is the same attention as `reference`, as a Report.

    Both are objects or import strings; `kind` is module, function, model, replacement or auto; `profile` quick, gate or
    thorough; `dtypes` narrows the four that are judged. `deviations` maps names of checks to the reason why a difference is
    accepted, or to a Deviation that expires; with `strict` a transform or a dtype that the candidate refuses loudly is a
    failure, too; `require_backend` names the kernel that must run, as `flash` or, in one dtype, as `bfloat16=flash`.
    `config`, `inputs`, `outputs` and `transfer`, functions or import strings, say what signatures do not tell of modules that
    are not minGPT's (`equivcheck.adaptation`). After `max_seconds`, or when interrupted, the report says that it is partial;
    so does each that `keep` is given, first before any check and then after every one. `jobs` processes share the work of a
    pair that is given as import strings, None for as many as suit the machine; the cases are the same, but that the profile gate
    has more of them on CUDA the more processes there are. Raises UsageError
    where the pair cannot be judged.
    """
    if profile not in PROFILES:
        raise UsageError(f"unknown profile {profile!r}: allowed are {', '.join(PROFILES)}")
    for dtype in dtypes or ():
        if dtype not in DTYPES:
            raise UsageError(f"unknown dtype {dtype!r}: allowed are {', '.join(DTYPES)}")
    accepted = accepted_of(deviations)
    said: dict[str, Given] = {"config": config, "inputs": inputs, "outputs": outputs, "transfer": transfer}
    subject = resolve(reference, candidate, kind=kind, device=device, adaptation=said)
    chosen = requiring(choose(checks, tuple(exclude), subject.kind), require_backend)
    must_judge(chosen, require_backend)
    heard = listener or _Silence()
    began = time.monotonic()
    until = began + max_seconds if max_seconds is not None else float("inf")
    results: list[CheckResult] = []
    ended: list[Search] = []
    sensitivity = Sensitivity()
    complete = True
    made_of = files(subject)

    def established(complete: bool) -> Report:
        seen = {result.name for result in results if result.outcome == "deviation"}
        file, line = defined_at(subject.candidate) or (None, None)
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
            sources=digests(made_of),
            files=made_of,
            candidate_file=file,
            candidate_line=line,
            kernels=kernels_told(results),
            strict=strict,
            deviations=tuple(replace(d, observed=d.name in seen) for d in accepted.values()),
        )

    kept = keep or (lambda _: None)
    try:
        usable, refused = usable_dtypes(subject, dtypes or DTYPES)
        asked = {text.partition("=")[0] for text in require_backend if "=" in text}
        if missing := sorted(asked - set(usable)):
            raise UsageError(
                f"--require-backend: the pair does not run in {', '.join(missing)}, so nothing can be judged there"
            )
        kept(established(complete=False))  # nothing is left of an older report from here on
        count = partial(planned_cases, subject=subject, profile=profile, dtypes=len(dtypes or DTYPES))
        wanted = jobs
        if wanted is None:  # other processes take seconds to start
            wanted = jobs_for(subject.device) if sum(count(check, jobs=1) for check in chosen) >= _WORTH_A_CREW else 1
        if not all(isinstance(function, str | None) for function in said.values()):
            wanted = 1  # other processes load what has an import string
        with crew(reference, candidate, subject, wanted, {"adaptation": said}) as workers:
            searches = [
                _search(check, subject, count(check, jobs=workers.jobs), SHRINK_S[profile], until, heard)
                for check in chosen
            ]
            workers.begin(searches, usable, seed)
            for search in searches:
                began_check = time.monotonic()
                try:
                    result = _hold(search, usable, refused, seed, workers)
                except KeyboardInterrupt:
                    # a difference that was already seen must not be lost with the rest
                    if search.failed:
                        results.append(declared(result_of(search, refused, time.monotonic() - began_check), accepted))
                    raise
                results.append(declared(result, accepted))
                ended.append(search)
                heard.finished(results[-1])
                kept(established(complete=False))
                complete = complete and not search.stopped
            notes = (*subject.notes, *_not_planted(subject, usable))
            if results and notes:
                results[0] = replace(results[0], notes=(*notes, *results[0].notes))
            spent = time.monotonic() - began
            # a check with a declared deviation stops where it differs: what it would have noticed cannot be asked of it
            noticing = [s for s, r in zip(ended, results, strict=True) if r.outcome != "deviation"]
            # as long again, for faults that nothing sees; to run out of it where all would be seen calls a right pair insensitive
            plant_until = min(until, time.monotonic() + max(spent, _PLANT_S))
            sensitivity = sensitivity_of(
                subject, noticing, profile, seed, plant_until, partial(heard.progress, "sensitivity"), workers, usable
            )
        complete = complete and time.monotonic() <= until
    except KeyboardInterrupt:
        complete = False
    return established(complete)


def _not_planted(subject: Subject, dtypes: Sequence[str]) -> Sequence[str]:
    """A note where the original rounds more coarsely than float64, and hides by that what some faults would show in it."""
    names = own_in_disguise(subject) if "float64" in dtypes else []
    if not names:
        return ()
    return (
        f"the original itself rounds so coarsely in float64 that these are not planted as faults: {', '.join(names)}",
    )


def _search(check: Check, subject: Subject, planned: int, shrink_s: float, until: float, heard: Listener) -> Search:
    def told(done: int) -> None:
        heard.progress(check.name, done, planned)

    return Search(check, subject, planned, shrink_s, until, told)


def _hold(
    search: Search, dtypes: Sequence[str], refused: Mapping[str, str], seed: int, workers: Workers
) -> CheckResult:
    began = time.monotonic()
    search.told(0)
    if not workers.run(search, dtypes, seed):
        return CheckResult(
            search.check.name, "unsupported", 0, detail="no dtype is left", unsupported=tuple(refused.values())
        )
    _explain(search)
    # of all processes; that this one waited for them says little where they work ahead
    return result_of(search, refused, max(search.seconds, time.monotonic() - began if workers.jobs == 1 else 0.0))


def _explain(search: Search) -> None:
    if search.minimal is not None:
        others = [case for case in search.failed if case != search.minimal]
        search.explained = explanation(
            search.subject, [search.minimal, *others], gradients=search.check.name != "output"
        )


def replay(
    reference: Any,
    candidate: Any,
    case_id: str,
    *,
    kind: str = "auto",
    device: str = "auto",
    checks: Sequence[str] | None = None,
    config: Given = None,
    inputs: Given = None,
    outputs: Given = None,
    transfer: Given = None,
    require_backend: Sequence[str] = (),
) -> tuple[CheckResult, ...]:
    """Run the checks on one case again; the detail of each result has the whole comparison."""
    case = Case.parse(case_id)
    said = {"config": config, "inputs": inputs, "outputs": outputs, "transfer": transfer}
    subject = resolve(reference, candidate, kind=kind, device=device, adaptation=said)
    results = []
    for check in requiring(choose(checks, (), subject.kind), require_backend):
        search = Search(check, subject, 1, 0.0, float("inf"), lambda _: None)
        began = time.monotonic()
        with suppress(Mismatch):
            search.visit(case)
        _explain(search)
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
    if report.verdict == "unsupported":
        told += [
            f"{r.name}: unsupported, and the run is strict: {what}" for r in report.results for what in r.unsupported
        ]
    if not report.complete:
        told.append("partial: the run did not finish")
    worst = max((result.worst_ratio or 0.0 for result in report.results), default=0.0)
    raise Mismatch(f"{report.candidate} is {report.verdict}\n" + "\n".join(told), ratio=worst)


class _CallableModule(types.ModuleType):
    """`equivcheck.verify` names this module once somebody has imported it by name, and the function until then: call either."""

    def __call__(self, reference: Any, candidate: Any, **options: Any) -> Report:
        return verify(reference, candidate, **options)


sys.modules[__name__].__class__ = _CallableModule
