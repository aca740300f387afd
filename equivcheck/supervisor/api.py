"""Sealed runs of pairs of import strings: `verify` one, `replay` one of its cases, `ask` a question about it."""

import math
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from equivcheck.errors import UsageError
from equivcheck.report import streams
from equivcheck.report.model import CheckResult, Report
from equivcheck.supervisor.deaths import Lost
from equivcheck.supervisor.early import death_result
from equivcheck.supervisor.interrupts import Interrupted, listening
from equivcheck.supervisor.listener import Listener
from equivcheck.supervisor.nurseries import nursery
from equivcheck.supervisor.replayed import replayed
from equivcheck.supervisor.request import Request
from equivcheck.supervisor.run import Run
from equivcheck.supervisor.sealed import NamedPair, Sealed, where_it_begins

__all__ = ["ask", "replay", "verify"]

_shared: dict[Any, Sealed] = {}  # by pair


def verify(
    pair: NamedPair,
    request: Request,
    *,
    listener: Listener,
    keep: Callable[[Report], None],
    signals: Sequence[signal.Signals] = (signal.SIGINT,),
) -> Report:
    """The report of a sealed run.

    Args:
        pair: The pair to judge.
        request: The user's request.
        listener: Its methods are called with the progress of the run. An exception of theirs ends the run.
        keep: A function that is given a partial report before the first check and after every one.
        signals: The signals that end the run with a partial report.

    Raises:
        UsageError: The pair could not be judged.
    """
    began = time.monotonic()
    until = began + request.max_seconds if request.max_seconds is not None else math.inf
    with listening(*signals) as flag:
        workers = _shared.pop(pair.key, None) if request.shared else None
        if workers is None or workers.pool.nursery.dead:
            workers = Sealed(pair, request, nursery(), where_it_begins())
        workers.again(request, until, lambda: flag.up)
        whole = False
        try:
            report = Run(
                workers=workers,
                reference=pair.reference,
                candidate=pair.candidate,
                kind=pair.kind,
                device=pair.device,
                request=request,
                began=began,
                until=until,
                listener=listener,
                keep=keep,
            ).execute()
            whole = report.complete
            return report
        finally:
            _show(workers.printed())
            if request.shared and whole:
                _shared[pair.key] = workers
            else:
                workers.close()


def ask(pair: NamedPair, name: str, **arguments: Any) -> Any:
    """The answer to one question about a pair, of a worker that is kept for later runs.

    Args:
        pair: The pair that the question is about.
        name: The question.
        arguments: Its arguments, as plain data.

    Raises:
        UsageError: The pair could not be judged.
    """
    request = Request(profile="quick", dtypes=(), jobs=1, shared=True)
    workers = _shared.pop(pair.key, None) or Sealed(pair, request, nursery(), where_it_begins())
    workers.again(request, math.inf, lambda: False)
    try:
        workers.open()
        answer = workers.answer(name, **arguments)
        _shared[pair.key] = workers
        return answer
    except Lost as lost:
        workers.close()
        raise UsageError(
            f"{pair.candidate} could not be loaded: the {lost.death.side or 'original'} {lost.description}"
        ) from None
    finally:
        _show(workers.printed())


def replay(
    pair: NamedPair,
    case: str,
    *,
    checks: Sequence[str] | None,
    require_backend: Sequence[str],
    max_memory_ratio: float | None = None,
    case_seconds: float | None = None,
    worker_memory: float | None = None,
    signals: Sequence[signal.Signals] = (),
) -> tuple[CheckResult, ...]:
    """The results of the checks on one case, in a worker; its death is a result, too.

    Args:
        pair: The pair to judge.
        case: The id of the case.
        checks: The names of the checks to run; None for all that apply.
        require_backend: The kernels that must run.
        max_memory_ratio: How many times the original's memory the candidate may take; None for any.
        case_seconds: The time limit of the case; None for the default.
        worker_memory: How many bytes a process may use; None for the default.
        signals: The signals that end the replay.

    Raises:
        UsageError: There is no such case, or the pair could not be judged.
    """
    request = Request(
        profile="quick",
        checks=checks,
        dtypes=(),
        require_backend=require_backend,
        max_memory_ratio=max_memory_ratio,
        jobs=1,
        case_seconds=case_seconds,
        worker_memory=worker_memory,
    )
    with listening(*signals) as flag:
        workers = Sealed(pair, request, nursery(), where_it_begins())
        workers.again(request, math.inf, lambda: flag.up)
        try:
            workers.open()
            options = {"require_backend": list(require_backend), "max_memory_ratio": max_memory_ratio}
            answers = workers.answer("replay", case=case, checks=checks, **options)
            return replayed(answers)
        except Interrupted:
            raise KeyboardInterrupt from None
        except Lost as lost:
            check = checks[0] if checks else None
            sides = pair.reference, pair.candidate
            return (death_result(lost, *sides, kind=pair.kind, device=pair.device, check=check),)
        finally:
            _show(workers.printed())
            workers.close()


def _show(text: str) -> None:
    if text:
        with suppress(OSError, ValueError):
            streams.current().notes().write(text)
            streams.current().notes().flush()
