"""The outcome of a case as plain data for the supervisor, and a difference that another process has seen."""

import math
from pathlib import Path

from equivcheck.cases.case import Case
from equivcheck.cases.fields import FIELDS, visited
from equivcheck.checks import CaseResult
from equivcheck.checks.base.within import within
from equivcheck.errors import Mismatch, Raised
from equivcheck.report.outcomes import CaseOutcome

__all__ = ["Recorded", "origin_of", "outcome_of"]

_SAYING_WHERE = (within.__module__, "contextlib")


class Recorded(Mismatch):
    """A difference that another process has seen on a case."""

    def __init__(self, outcome: CaseOutcome) -> None:
        super().__init__(
            str(outcome.failed),
            ratio=math.inf if outcome.ratio is None else outcome.ratio,
            where=outcome.where,
            finding=outcome.finding,
            spot=outcome.spot,
        )
        self.origin, self.died = outcome.origin, outcome.died


def outcome_of(case: Case, result: CaseResult | Mismatch) -> CaseOutcome:
    """The outcome of a case as plain data."""
    classes = visited(case)
    if isinstance(result, Recorded):
        return CaseOutcome(
            case.id,
            classes,
            result.ratio,
            result.where,
            failed=str(result),
            origin=result.origin,
            died=result.died,
            finding=result.finding,
            spot=result.spot,
        )
    if isinstance(result, Mismatch):
        return CaseOutcome(
            case.id,
            classes,
            result.ratio,
            result.where,
            failed=str(result),
            origin=origin_of(result),
            finding=result.finding,
            spot={**result.spot, "fields": {field.name: getattr(case, field.name) for field in FIELDS}},
        )
    return CaseOutcome(
        case.id,
        classes,
        result.ratio,
        result.where,
        result.notes,
        result.unsupported,
        result.judged,
        data=result.data,
        applies=result.applies,
        reason=result.reason,
        outside=result.outside,
    )


def origin_of(mismatch: Mismatch) -> str:
    """The class of a failure and the line that raised it: Hypothesis tells failures apart by the same two."""
    if isinstance(mismatch, Recorded):
        return mismatch.origin
    place, entry = "", mismatch.__traceback__
    while entry is not None:
        # `within` raises a difference again, with its place in front: frames of `within` are no origin
        if entry.tb_frame.f_globals.get("__name__") not in _SAYING_WHERE:
            place = f"{Path(entry.tb_frame.f_code.co_filename).name}:{entry.tb_lineno}"
        entry = entry.tb_next
    return f"{type(mismatch).__name__} {place} {mismatch.where if isinstance(mismatch, Raised) else ''}".strip()
