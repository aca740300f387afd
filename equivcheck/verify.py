"""What a user calls: `verify` a pair, `replay` one case of it, and `assert_equivalent`."""

import sys
import time
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from equivcheck import working_folder
from equivcheck.adaptation import Given
from equivcheck.cases import DTYPES, Case
from equivcheck.checks.backend import requiring
from equivcheck.comparison import Mismatch
from equivcheck.crew import crew, jobs_for
from equivcheck.deviations import accepted_of
from equivcheck.errors import UsageError
from equivcheck.kinds import resolve
from equivcheck.loading import find_device
from equivcheck.outcome import result_of
from equivcheck.plan import PROFILES, choose, must_judge, roughly
from equivcheck.report.model import CheckResult, Deviation, Report
from equivcheck.run import Listener, Run, explain
from equivcheck.search import Search

__all__ = ["PROFILES", "Listener", "assert_equivalent", "choose", "replay", "verify"]

_WORTH_A_CREW = 300  # cases


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
    began, root = time.monotonic(), working_folder.current()
    said: dict[str, Given] = {"config": config, "inputs": inputs, "outputs": outputs, "transfer": transfer}
    accepted = accepted_of(deviations)
    where = find_device(device)
    if jobs is None:  # other processes take seconds to start
        jobs = jobs_for(where) if roughly(checks, profile, dtypes or DTYPES) >= _WORTH_A_CREW else 1
    if not all(isinstance(function, str | None) for function in said.values()):
        jobs = 1  # other processes load what has an import string
    with crew(reference, candidate, kind, where, jobs, {"adaptation": said}) as workers:
        subject = resolve(reference, candidate, kind=kind, device=device, adaptation=said)
        chosen = requiring(choose(checks, tuple(exclude), subject.kind), require_backend)
        must_judge(chosen, require_backend)
        return Run(
            subject=subject,
            checks=chosen,
            profile=profile,
            seed=seed,
            dtypes=dtypes or DTYPES,
            required=frozenset(text.partition("=")[0] for text in require_backend if "=" in text),
            accepted=accepted,
            strict=strict,
            began=began,
            until=began + max_seconds if max_seconds is not None else float("inf"),
            heard=listener or _Silence(),
            keep=keep or (lambda _: None),
            root=root,
        ).through(workers)


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
        explain(search)
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
