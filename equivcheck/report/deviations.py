"""Deviations: differences that a user declares, each with a reason, and some with a day on which they expire."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from equivcheck.errors import UsageError
from equivcheck.report.model import CheckResult, Deviation

__all__ = ["apply_deviation", "parse_deviations"]


def parse_deviations(deviations: Mapping[str, str | Deviation] | None, known: Sequence[str]) -> dict[str, Deviation]:
    """The deviations by the names of their checks; a UsageError for one that is not `known`, and where a reason is missing."""
    accepted = {}
    for name, given in (deviations or {}).items():
        if name not in known:
            raise UsageError(f"unknown deviation {name!r}: it is the name of a check, one of {', '.join(known)}")
        deviation = given if isinstance(given, Deviation) else Deviation(name, str(given).strip())
        if not deviation.reason:
            raise UsageError(f"deviation {name!r} has no reason: say why the difference is accepted")
        accepted[name] = replace(deviation, name=name)
    return accepted


def apply_deviation(result: CheckResult, accepted: Mapping[str, Deviation]) -> CheckResult:
    """The result as it counts: a declared difference that has not expired is a deviation; one that is gone is a note."""
    deviation = accepted.get(result.name)
    if deviation is None:
        return result
    if result.outcome != "different":
        return replace(result, notes=(*result.notes, f"the declared deviation no longer shows: {deviation.reason}"))
    if deviation.expired(datetime.now(UTC).date()):
        return replace(
            result, detail=f"the deviation declared for it expired on {deviation.expires}: {deviation.reason}"
        )
    return replace(result, outcome="deviation", detail=f"declared: {deviation.reason}")
