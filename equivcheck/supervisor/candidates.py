"""Many candidates for one original: each is judged and timed in processes that no other candidate has run in."""

import math
import signal
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from equivcheck.errors import ToolError, UsageError
from equivcheck.report.judged import Judged, Timed
from equivcheck.report.model import Report
from equivcheck.supervisor import api
from equivcheck.supervisor.deaths import Lost
from equivcheck.supervisor.interrupts import Flag, Interrupted, listening
from equivcheck.supervisor.listener import Listener
from equivcheck.supervisor.nurseries import nursery
from equivcheck.supervisor.request import Request
from equivcheck.supervisor.sealed import NamedPair, Sealed, where_it_begins

__all__ = ["Given", "judge_each"]

_LEAST_S = 60.0  # for the timing of one candidate: its truth is computed as well
_TIMES = 10.0


@dataclass(frozen=True)
class Given:
    """A candidate as a user gave it, with its import string, or with the reason why it has none."""

    text: str
    candidate: str = ""
    problem: str = ""


def judge_each(
    pair: NamedPair,
    request: Request,
    candidates: Iterable[Given],
    *,
    listener: Listener,
    timing_seconds: float,
    signals: Sequence[signal.Signals] = (),
) -> Iterator[Judged]:
    """Judge candidates one after the other; whatever one of them does is a result of this one alone.

    Args:
        pair: The original, with any candidate.
        request: The request of each run.
        candidates: The candidates; each is taken when the one before is judged.
        listener: Receives the progress of each run.
        timing_seconds: The time for the timed calls of one equivalent candidate.
        signals: The signals that interrupt; the candidate that is judged then is the last. They are left alone while
            the next candidate is waited for.

    Yields:
        Each candidate, as soon as it is judged.

    Raises:
        KeyboardInterrupt: One of these signals came: the candidates that are left were not judged.
    """
    for given in candidates:
        began = time.monotonic()
        with listening(*signals) as flag:
            one = _judged(replace(pair, candidate=given.candidate), request, given, listener, flag)
            if one.status == 0 and one.report is not None and not flag.up:
                of_this = replace(pair, candidate=given.candidate, domain=one.report.domain or None)
                one = replace(one, **_times(of_this, one.report, timing_seconds, flag))
        yield replace(one, seconds=time.monotonic() - began)
        if flag.up:
            raise KeyboardInterrupt


def _judged(pair: NamedPair, request: Request, given: Given, listener: Listener, flag: Flag) -> Judged:
    """The verdict on one candidate, as `verify` makes it."""
    one = Judged(given=given.text, candidate=given.candidate)
    if given.problem:
        return replace(one, problem=given.problem)
    try:
        report = api.verify(pair, request, listener=listener, keep=lambda report: None, signals=flag.signals)
    except UsageError as error:
        return replace(one, problem=str(error))
    except ToolError as error:
        return replace(one, problem=str(error), reason="internal")
    except (Exception, SystemExit) as error:  # nothing that one candidate does may end the others
        return replace(one, problem=f"{type(error).__name__}: {error}", reason="internal")
    return replace(one, report=report)


def _times(pair: NamedPair, report: Report, seconds: float, flag: Flag) -> dict[str, Any]:
    """The times of an equivalent candidate, in a fresh worker; or the reason why there are none."""
    limit = max(_LEAST_S, _TIMES * seconds)
    request = Request(profile="quick", dtypes=(), jobs=1, case_seconds=limit)
    workers = None
    try:
        workers = Sealed(replace(pair, kind=report.kind), request, nursery(), where_it_begins())
        workers.again(request, math.inf, lambda: flag.up)
        workers.pool.context.append(("watch", {}))
        workers.open()
        answer = workers.answer("timed", dtypes=list(report.dtypes), seconds=seconds)
        replaced = workers.answer("replaced")
        changed = [*workers.answer("judging"), *replaced["original"], *replaced["torch"]]
    except Lost as lost:
        return {"untimed": f"the process {lost.description}"}
    except Interrupted:
        return {"untimed": "interrupted"}
    except (UsageError, ToolError) as error:
        return {"untimed": str(error)}
    finally:
        if workers is not None:
            workers.printed()  # shown by the run before
            workers.close()
    if "untimed" in answer:
        return {"untimed": str(answer["untimed"])}
    if changed:
        return {"untimed": f"timed calls do not count, as the pair replaced {', '.join(map(str, changed))}"}
    return {"timed": Timed(**answer)}
