"""The results of a case that was run again: the answer to the question `replay`, as results of checks."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from equivcheck.report.diagnosis import Diagnosis
from equivcheck.report.model import CheckResult
from equivcheck.report.outcomes import CaseOutcome, Searched, check_result

__all__ = ["replayed"]


def replayed(answers: Sequence[Mapping[str, Any]]) -> tuple[CheckResult, ...]:
    """The results of the checks on one case: the comparison if it failed, the largest ratio if not."""
    results = []
    for one in answers:
        outcome = CaseOutcome.of(one["outcome"])
        searched = Searched(seconds=one["seconds"], diagnosis=Diagnosis.of(one["diagnosis"]))
        searched.add(outcome)
        searched.minimal = outcome.case if outcome.failed is not None else None
        result = check_result(one["name"], searched, planned=1, judges=one["judges"], replay=one["replay"], refused={})
        if result.counterexample:
            detail = result.counterexample.message
        elif result.outcome == "equivalent" and outcome.where:
            of_it = [f"  {line}" for line in str(one["made_of"]).splitlines()]
            detail = "\n".join((f"within budget; the largest ratio is that of {outcome.where}", *of_it))
        else:
            detail = ""
        results.append(replace(result, detail=detail))
    return tuple(results)
