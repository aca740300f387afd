"""The differences of a report for programs: one flat object for each, with every fact in a field of its own."""

from typing import Any

from equivcheck.report.model import CheckResult, Finding, Report

__all__ = ["difference", "differences"]


def differences(report: Report) -> list[dict[str, Any]]:
    """The differences of a run that are not declared, in the order of its checks; `docs/json.md` has the fields."""
    return [
        difference(result, finding)
        for result in report.shown
        for finding in result.shown
        if finding.outcome == "different"
    ]


def difference(result: CheckResult, finding: Finding) -> dict[str, Any]:
    """One difference of a check."""
    example = finding.counterexample
    return {
        "level": finding.level,
        "check": result.name,
        "finding": finding.name,
        "stage": example.stage,
        "module": example.module or None,
        "tensor": example.tensor or None,
        "index": list(example.index),
        "candidate": example.candidate,
        "oracle": example.oracle,
        "norm": example.norm or None,
        "row": list(example.row),
        "error": example.error,
        "allowed": example.allowed,
        "ratio": example.ratio,
        "case": {"id": example.case, "fields": dict(example.fields)},
        "message": example.message,
        "replay": example.replay,
    }
