"""A sealed run of a pair that is given by import strings: `verify` it, `replay` one case of it."""

import atexit
import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from types import FrameType
from typing import Any

from equivcheck.errors import UsageError
from equivcheck.report import streams
from equivcheck.report.model import CheckResult, Deviation, Report
from equivcheck.report.outcomes import CaseOutcome, Searched, check_result
from equivcheck.supervisor.early import death_result
from equivcheck.supervisor.nursery import Nursery
from equivcheck.supervisor.pool import Interrupted, Lost
from equivcheck.supervisor.run import Listener, Run
from equivcheck.supervisor.sealed import NamedPair, Sealed, where_it_begins

__all__ = ["INSIDE", "Flag", "ask", "replay", "start", "verify"]

INSIDE = "EQUIVCHECK_WORKER"
_KEY = (
    "CUDA",
    "OMP",
    "MKL",
    "KMP",
    "TORCH",
    "PYTORCH",
    "PYTHON",
    "LD_",
    "OPENBLAS",
)  # what is read when torch is imported


class Flag:
    """Whether the run is to end: set by Ctrl-C and by SIGTERM, which so cannot be lost in a callback."""

    def __init__(self) -> None:
        self.up = False

    def raise_it(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.up = True


@contextmanager
def listening(*signals: signal.Signals) -> Iterator[Flag]:
    """Inside, these signals raise the flag, where this is the thread that gets them."""
    flag = Flag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {}
    for number in signals:
        if number != signal.SIGINT or signal.getsignal(number) is signal.default_int_handler:
            before[number] = signal.signal(number, flag.raise_it)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


_nurseries: dict[Any, Nursery] = {}


def nursery() -> Nursery:
    """The process that workers are forked from: one for each way to import torch, kept until this process ends.

    Raises:
        UsageError: This is a worker itself.
    """
    if os.environ.get(INSIDE):
        raise UsageError("equivcheck was started by the code that it runs: remove that from it, or guard it")
    apart = not os.environ.get(streams.DEBUG)
    key = (os.getpid(), apart, tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith(_KEY))))
    if key not in _nurseries or _nurseries[key].dead:
        for old in list(_nurseries):
            found = _nurseries.pop(old)
            if old[0] == os.getpid():
                found.close()
        _nurseries[key] = Nursery(streams=apart)
    return _nurseries[key]


def start() -> None:
    """Start what takes long, so that it is done by the time that a run wants it."""
    with suppress(UsageError):
        nursery()


@atexit.register
def _end() -> None:
    for key, found in _nurseries.items():
        if key[0] == os.getpid():
            found.close()
    _nurseries.clear()


def verify(
    pair: NamedPair,
    *,
    profile: str,
    checks: Sequence[str] | None,
    exclude: Sequence[str],
    seed: int,
    max_seconds: float | None,
    deviations: Mapping[str, str | Deviation] | None,
    dtypes: Sequence[str],
    strict: bool,
    jobs: int | None,
    require_backend: Sequence[str],
    case_seconds: float | None,
    worker_memory: float | None,
    heard: Listener,
    keep: Callable[[Report], None],
    signals: Sequence[signal.Signals] = (signal.SIGINT,),
    shared: bool = False,
) -> Report:
    """The report of a sealed run; arguments are those of `equivcheck.verify`. A `shared` worker is kept for the next such run.

    Raises:
        UsageError: The pair could not be judged.
    """
    began = time.monotonic()
    until = began + max_seconds if max_seconds is not None else math.inf
    asked = {
        "checks": None if checks is None else list(checks),
        "exclude": list(exclude),
        "profile": profile,
        "seed": seed,
        "dtypes": list(dtypes),
        "require_backend": list(require_backend),
    }
    with listening(*signals) as flag:
        workers = _shared.pop(pair.key, None) if shared else None
        if workers is None or workers.pool.nursery.dead:
            workers = Sealed(
                pair,
                nursery(),
                where_it_begins(),
                jobs=jobs,
                asked=asked,
                case_seconds=case_seconds,
                worker_memory=worker_memory,
            )
        workers.again(asked, until, lambda: flag.up, shared=shared)
        whole = False
        try:
            report = Run(
                workers=workers,
                reference=pair.reference,
                candidate=pair.candidate,
                kind=pair.kind,
                device=pair.device,
                asked=asked,
                deviations=deviations or {},
                strict=strict,
                began=began,
                until=until,
                heard=heard,
                keep=keep,
            ).through()
            whole = report.complete
            return report
        finally:
            _show(workers.printed())
            if shared and whole:
                _shared[pair.key] = workers
            else:
                workers.close()


def ask(pair: NamedPair, name: str, **arguments: Any) -> tuple[Mapping[str, Any], Any]:
    """How a pair is loaded, and the answer to one question, of a worker that is kept for later runs.

    Raises:
        UsageError: The pair could not be judged.
    """
    asked = {"checks": None, "profile": "quick", "dtypes": ()}
    workers = _shared.pop(pair.key, None) or Sealed(pair, nursery(), where_it_begins(), jobs=1, asked=asked)
    workers.again(asked, math.inf, lambda: False, shared=True)
    try:
        answer = workers.open(), workers.answer(name, **arguments)
        _shared[pair.key] = workers
        return answer
    except Lost as lost:
        workers.close()
        raise UsageError(
            f"{pair.candidate} could not be loaded: the {lost.death.side or 'original'} {lost.told}"
        ) from None
    finally:
        _show(workers.printed())


_shared: dict[Any, Sealed] = {}


def replay(
    pair: NamedPair,
    case: str,
    *,
    checks: Sequence[str] | None,
    require_backend: Sequence[str],
    case_seconds: float | None = None,
    worker_memory: float | None = None,
    signals: Sequence[signal.Signals] = (),
) -> tuple[CheckResult, ...]:
    """What the checks say of one case, in a worker; where its process dies of one, that is what came of it."""
    asked = {"checks": checks, "profile": "quick", "dtypes": ()}
    with listening(*signals) as flag:
        workers = Sealed(
            pair,
            nursery(),
            where_it_begins(),
            jobs=1,
            asked=asked,
            case_seconds=case_seconds,
            worker_memory=worker_memory,
        )
        workers.again(asked, math.inf, lambda: flag.up, shared=False)
        try:
            workers.open()
            found = workers.answer("replay", case=case, checks=checks, require_backend=list(require_backend))
            return replayed(found)
        except Interrupted:
            raise KeyboardInterrupt from None
        except Lost as lost:
            check = checks[0] if checks else None
            sides = pair.reference, pair.candidate
            return (death_result(lost, *sides, kind=pair.kind, device=pair.device, check=check),)
        finally:
            _show(workers.printed())
            workers.close()


def replayed(found: Sequence[Mapping[str, Any]]) -> tuple[CheckResult, ...]:
    """The results of the checks that ran on one case: the comparison of each that failed, and where a passing one was worst."""
    results = []
    for one in found:
        outcome = CaseOutcome.of(one["outcome"])
        searched = Searched(seconds=one["seconds"], explained=one["explained"])
        searched.add(outcome)
        searched.minimal = outcome.case if outcome.failed is not None else None
        result = check_result(one["name"], searched, planned=1, judges=one["judges"], replay=one["replay"], refused={})
        if result.counterexample:
            detail = result.counterexample.message
        elif result.outcome == "equivalent" and outcome.where:
            detail = f"within budget; the largest ratio is that of {outcome.where}"
        else:
            detail = ""
        results.append(replace(result, detail=detail))
    return tuple(results)


def _show(text: str) -> None:
    if text:
        with suppress(OSError, ValueError):
            streams.current().notes().write(text)
            streams.current().notes().flush()
