"""A difference of a replayed case as a script that needs torch and the two sides alone; a worker writes and tries it."""

import math
from collections.abc import Sequence
from typing import Any

from equivcheck.errors import UsageError
from equivcheck.report.levels import VALUES
from equivcheck.report.model import CheckResult
from equivcheck.supervisor.deaths import Lost
from equivcheck.supervisor.nurseries import nursery
from equivcheck.supervisor.request import Request
from equivcheck.supervisor.sealed import NamedPair, Sealed, where_it_begins

__all__ = ["script_of"]


def script_of(pair: NamedPair, case: str, results: Sequence[CheckResult]) -> str:
    """The source of a script that shows the first difference of values on a case.

    Args:
        pair: The pair.
        case: The case.
        results: The results of the checks on it.

    Raises:
        UsageError: No such script can be written; the message says why.
    """
    spots = [
        {name: getattr(finding.counterexample, name) for name in ("tensor", "norm", "index", "row", "allowed")}
        for result in results
        for finding in result.shown
        if finding.level == VALUES and finding.counterexample.norm
    ]
    if not spots:
        raise UsageError(
            "no script can be written of this case: no check shows a difference of values; replay it without --script"
        )
    request = Request(profile="quick", dtypes=(), jobs=1)
    first = where_it_begins()
    workers = Sealed(pair, request, nursery(), first)
    workers.again(request, math.inf, lambda: False)
    refusal: UsageError | None = None
    try:
        workers.open()
        for spot in spots:  # one that only a second call shows is refused, and another may not be
            try:
                source: Any = workers.answer("script", case=case, spot=spot, folder=first["folder"])
            except UsageError as error:
                refusal = refusal or error
            else:
                return str(source)
    except Lost as lost:
        refusal = UsageError(f"no script can be written of this case: a process {lost.description}")
    finally:
        workers.printed()
        workers.close()
    assert refusal is not None, "there is a spot"
    raise refusal
