"""The functions that a user calls: `verify` a pair, `replay` one case of it, and `assert_equivalent`."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from equivcheck.errors import Mismatch, UsageError
from equivcheck.pairs.given import Given
from equivcheck.report.catalogue import PROFILES, KindOrAuto, Profile
from equivcheck.report.levels import Level, levels_of
from equivcheck.report.model import CheckResult, Deviation, Report
from equivcheck.report.outcomes import DTYPES
from equivcheck.runtime import clock
from equivcheck.runtime.file_access import watched
from equivcheck.runtime.memory_limit import memory_limit
from equivcheck.runtime.nearest_name import did_you_mean
from equivcheck.supervisor import api
from equivcheck.supervisor.listener import Listener, Silence
from equivcheck.supervisor.replayed import replayed
from equivcheck.supervisor.request import Request
from equivcheck.supervisor.run import Run
from equivcheck.supervisor.sealed import NamedPair

__all__ = ["PROFILES", "Listener", "assert_equivalent", "pair_of", "replay", "verify"]


def verify(
    reference: Any,
    candidate: Any,
    *,
    kind: KindOrAuto = "auto",
    device: str = "auto",
    profile: Profile = "gate",
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
    oracle: Given = None,
    require: Level | Iterable[Level] | None = None,
    domain: str | Callable[..., Any] | None = None,
    strict: bool = False,
    jobs: int | None = 1,
    require_backend: Sequence[str] = (),
    max_memory_ratio: float | None = None,
    case_seconds: float | None = None,
    worker_memory: float | None = None,
    setup: str | None = None,
    listener: Listener | None = None,
    keep: Callable[[Report], None] | None = None,
    shared: bool = False,
    all_cases: bool = False,
    fail_fast: bool = False,
    profile_run: bool = False,
    remembered: bool = False,
) -> Report:
    """Whether `candidate` is the same attention as `reference`, as a Report.

    A pair of import strings runs in processes of its own: whatever it does there, this process makes the verdict.
    Objects run in this process, and the report says `unsealed`.

    Args:
        reference: The original: an object, or an import string.
        candidate: The attention to be judged: an object, or an import string.
        kind: module, function, model, replacement or auto.
        device: auto, cpu, cuda or cuda:N.
        profile: screen, quick, gate or thorough.
        checks: The names of the checks to run; None for all that apply.
        exclude: The names of checks that are left out.
        seed: The seed of the cases.
        max_seconds: The seconds after which the run ends, if need be with a report that says that it is partial.
        deviations: Name of a check -> the reason why a difference is accepted, or a Deviation that expires.
        dtypes: The dtypes to judge in; None for all four.
        config: A function, or its import string, from a minGPT config to the arguments of the constructors. This and
            the next three supply facts that signatures lack (`equivcheck.pairs.adaptation`).
        inputs: A function from x to the arguments of forward.
        outputs: A function from the result of forward to the tensor to compare.
        transfer: A function from the reference's state_dict to the candidate's; or the word auto.
        oracle: The original in float64 and on the CPU, if it does not run there: a function, or a factory like it.
        require: The levels that must be equivalent, of values, training, transforms and drop-in; by default all, and
            values and training for functions.
        domain: The cases that the original is meant for, as an expression of fields of a case
            (`equivcheck.cases.domain`), or a function of a case; by default that is discovered.
        strict: Whether a transform or a dtype that the candidate refuses loudly is a failure, too.
        jobs: How many processes run a pair of import strings; None for as many as suit the machine. The cases stay the
            same.
        require_backend: The kernel that must run, as `flash` or, in one dtype, as `bfloat16=flash`.
        max_memory_ratio: How many times the original's peak memory the candidate's may be, by the check `memory`, which
            runs where this is given.
        case_seconds: The time in s after which the process of a case is ended; by default 60 s, or 20 times the slowest
            so far.
        worker_memory: How many bytes a process may use; by default 80 % of what is free.
        setup: The import string of a function that each process calls first.
        listener: Its methods are called with the progress of the run and, if it has `differs`, with the first difference
            at each required level at once. An exception of theirs ends the run.
        keep: A function that is given a partial report before the first check and after every one.
        shared: Whether the process of a pair of import strings is kept for the next such call: tests share one.
        all_cases: Whether every check runs all of its cases although its levels are different without it.
        fail_fast: Whether the run ends at the first difference at a required level.
        profile_run: Whether the report says where the time went (`time_spent`). On a GPU the clock then waits for it
            often, which makes the run slower.
        remembered: Whether the run begins with the pair's last counterexamples, from `.equivcheck/` in the current
            folder, and keeps those that it shows there; not where the environment variable `CI` is set, and not for
            objects that no import string names.

    Raises:
        UsageError: The pair cannot be judged.
    """
    if profile not in PROFILES:
        meant = did_you_mean(profile, PROFILES)
        raise UsageError(f"unknown profile {profile!r}: allowed are {', '.join(PROFILES)}{meant}")
    for dtype in dtypes or ():
        if dtype not in DTYPES:
            raise UsageError(f"unknown dtype {dtype!r}: allowed are {', '.join(DTYPES)}{did_you_mean(dtype, DTYPES)}")
    user_functions: dict[str, Given] = {
        "config": config,
        "inputs": inputs,
        "outputs": outputs,
        "transfer": transfer,
        "oracle": oracle,
    }
    request = Request(
        profile=profile,
        checks=checks,
        exclude=tuple(exclude),
        seed=seed,
        dtypes=dtypes or DTYPES,
        require_backend=require_backend,
        max_memory_ratio=memory_limit(max_memory_ratio, "max_memory_ratio"),
        deviations=deviations or {},
        strict=strict,
        max_seconds=max_seconds,
        jobs=jobs,
        case_seconds=case_seconds,
        worker_memory=worker_memory,
        shared=shared,
        require=levels_of(require, "require"),
        domain=domain,
        all_cases=all_cases,
        fail_fast=fail_fast,
        profile_run=profile_run,
        remembered=remembered,
    )
    listener, keep = listener or Silence(), keep or (lambda report: None)
    pair = pair_of(reference, candidate, kind, device, user_functions, setup, domain)
    if pair is not None:
        return api.verify(pair, request, listener=listener, keep=keep)
    if setup is not None:
        raise UsageError(f"setup={setup!r} is for pairs that are given as import strings: call it before verify")
    from equivcheck.pairs.loading import name_of
    from equivcheck.worker.in_process import InProcess  # torch, which a pair of import strings does not need here

    if any(name_of(side) == repr(side) for side in (reference, candidate)):
        request = replace(request, remembered=False)  # a later run could not know the pair again
    began = time.monotonic()
    until = began + max_seconds if max_seconds is not None else float("inf")
    with watched() as access, clock.kept(profile_run):
        return Run(
            workers=InProcess(
                access,
                until,
                reference=reference,
                candidate=candidate,
                kind=kind,
                device=device,
                adaptation=user_functions,
                domain=domain,
            ),
            reference=str(reference),
            candidate=str(candidate),
            kind=kind,
            device=device,
            request=request,
            began=began,
            until=until,
            listener=listener,
            keep=keep,
        ).execute()


def pair_of(
    reference: Any,
    candidate: Any,
    kind: str,
    device: str,
    user_functions: Mapping[str, Given],
    setup: str | None,
    domain: Given = None,
) -> NamedPair | None:
    """The pair for processes of its own; None if a side or a user function is no import string.

    Raises:
        UsageError: The domain of such a pair is a function.
    """
    given = {name: value for name, value in user_functions.items() if value is not None}
    if not all(isinstance(value, str) for value in (reference, candidate, *given.values())):
        return None
    if domain is not None and not isinstance(domain, str):
        raise UsageError(
            f"domain={domain!r} is a function, and a pair of import strings runs in processes of its own: "
            "give the import string of the function, such as 'package.module:function'"
        )
    strings = {name: str(value) for name, value in given.items()}
    return NamedPair(reference, candidate, kind, device, strings, setup, domain)


def replay(
    reference: Any,
    candidate: Any,
    case_id: str,
    *,
    kind: KindOrAuto = "auto",
    device: str = "auto",
    checks: Sequence[str] | None = None,
    config: Given = None,
    inputs: Given = None,
    outputs: Given = None,
    transfer: Given = None,
    oracle: Given = None,
    require_backend: Sequence[str] = (),
    max_memory_ratio: float | None = None,
    domain: Given = None,
    in_process: bool = False,
) -> tuple[CheckResult, ...]:
    """Run the checks on one case again.

    Args:
        reference: The original, as in `verify`.
        candidate: The candidate, as in `verify`.
        case_id: The id of the case.
        kind: module, function, model, replacement or auto.
        device: auto, cpu, cuda or cuda:N.
        checks: The names of the checks to run; None for all that apply.
        config: As in `verify`, and so are `inputs`, `outputs`, `transfer` and `oracle`.
        inputs: See `config`.
        outputs: See `config`.
        transfer: See `config`.
        oracle: See `config`.
        require_backend: The kernel that must run, as in `verify`.
        max_memory_ratio: The limit of memory, as in `verify`.
        domain: The domain of the run that found the case, as in `verify`: the pair is loaded with cases in it.
        in_process: Whether import strings run in this process, too: for debuggers.

    Returns:
        A result for each check. Its detail has the comparison that failed, or the tensor with the largest ratio.

    Raises:
        UsageError: There is no such case, or the pair cannot be judged.
    """
    user_functions = {"config": config, "inputs": inputs, "outputs": outputs, "transfer": transfer, "oracle": oracle}
    pair = None if in_process else pair_of(reference, candidate, kind, device, user_functions, None, domain)
    limit = memory_limit(max_memory_ratio, "max_memory_ratio")
    if pair is not None:
        return api.replay(pair, case_id, checks=checks, require_backend=require_backend, max_memory_ratio=limit)
    from equivcheck.cases.case import Case  # torch, which a pair of import strings does not need here
    from equivcheck.worker.judge import Judge

    case = Case.parse(case_id)
    with watched() as access:
        judge = Judge(access)
        judge.load(reference, candidate, kind, device, user_functions, domain=domain)
        return replayed(judge.replay(case.id, checks, require_backend, limit))


def assert_equivalent(reference: Any, candidate: Any, **options: Any) -> Report:
    """The report of `verify`, if the pair is equivalent.

    Args:
        reference: The original.
        candidate: The candidate.
        options: Those of `verify`.

    Raises:
        Mismatch: The pair is not equivalent; the message has the counterexamples.
        UsageError: The pair cannot be judged.
    """
    report = verify(reference, candidate, **options)
    if report.equivalent:
        return report
    lines = [
        f"{result.name_of(finding)}: {shown.message}\n  case {shown.case}\n  {shown.replay}"
        for result in report.shown
        for finding in result.shown
        if finding.outcome == "different" and (shown := finding.counterexample)
    ]
    if report.verdict == "not judged":
        lines += [f"{r.name}: not judged: {'; '.join(r.notes)}" for r in report.results if r.outcome == "not judged"]
    if report.verdict == "insensitive" and report.sensitivity.survived:
        lines.append(f"insensitive: the planted faults {', '.join(report.sensitivity.survived)} were not seen")
    if report.verdict == "unsupported":
        lines += [
            f"{r.name}: unsupported, and the run is strict: {what}" for r in report.results for what in r.unsupported
        ]
    lines += report.findings
    if not report.complete:
        lines.append("partial: the run did not finish")
    worst = max((result.worst_ratio or 0.0 for result in report.results), default=0.0)
    raise Mismatch(f"{report.candidate} is {report.verdict}\n" + "\n".join(lines), ratio=worst)
