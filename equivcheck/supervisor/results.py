"""The result of a check, of a run that has all of its cases: so it is made in a run and when shards are put together."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from equivcheck.report.case_outcomes import Searched
from equivcheck.report.deviations import apply_deviation
from equivcheck.report.model import CheckResult, Deviation
from equivcheck.report.outcomes import check_result

__all__ = ["result_of_check", "result_without_classes"]


def result_of_check(
    check: Mapping[str, Any],
    searched: Searched,
    further: Sequence[Searched] = (),
    *,
    refused: Mapping[str, str],
    accepted: Mapping[str, Deviation],
    shortened: bool = False,
) -> CheckResult:
    """The result of a check, with the differences that are declared as deviations.

    Args:
        check: The check in the plan.
        searched: Its cases.
        further: The cases of further rounds, in which the findings of earlier ones are passed over.
        refused: Dtype -> why it was left out.
        accepted: Name of a check -> the difference that is accepted.
        shortened: Whether only its first cases were run.
    """
    result = check_result(
        check["name"],
        searched,
        planned=check["planned"],
        judges=check["judges"],
        replay=check["replay"],
        refused=refused,
        further=further,
    )
    return apply_deviation(replace(result, shortened=shortened), accepted)


def result_without_classes(name: str, refused: Mapping[str, str]) -> CheckResult:
    """The result of a check that has no cases, as no dtype is left."""
    return CheckResult(name, "unsupported", 0, detail="no dtype is left", unsupported=tuple(refused.values()))
