"""The report of one check as the outcome of a test: passed, skipped, an xfail, or a short failure."""

from collections.abc import Callable, Sequence

import pytest

from equivcheck.report.model import CheckResult, Finding, Report

__all__ = ["judge"]


def judge(report: Report, required: Sequence[str], has_faults: Callable[[], bool]) -> None:
    """Pass, skip or xfail with the reason, or fail with a short message: the difference, the case and its replay.

    Args:
        report: The report of a run of one check.
        required: The levels that must be equivalent.
        has_faults: A function that returns whether there is a fault that the check should see; it is asked if none was
            planted.
    """
    result = report.results[0] if report.results else None
    if result is None:
        pytest.fail(f"the run is {report.verdict}: it ended before anything was judged", pytrace=False)
    if report.findings:
        pytest.fail("; ".join(report.findings), pytrace=False)
    different = [finding for finding in result.shown if finding.outcome == "different"]
    for finding in different:
        if not finding.level or finding.level in required:
            pytest.fail(_words(result, finding), pytrace=False)
    if different:
        pytest.xfail(f"not required: {_words(result, different[0])}")
    if result.outcome == "deviation":
        return
    if result.outcome == "unsupported":
        pytest.skip(f"{result.name}: {'; '.join(result.unsupported) or result.detail}")
    if result.outcome == "not applicable":
        pytest.skip(f"{result.name} is not applicable: {'; '.join(result.notes)}")
    if not report.complete:
        pytest.fail(f"{result.name} is partial: {result.detail or 'it ran out of time'}", pytrace=False)
    if result.outcome == "not judged":
        reasons = "; ".join(result.notes) or ", ".join(result.not_judged)
        if any(level in required for level in result.levels):
            pytest.fail(f"{result.name} is not judged: {reasons}", pytrace=False)
        pytest.skip(f"{result.name} is not judged, and not required: {reasons}")
    survived = [f for f in report.sensitivity.survived if report.sensitivity.levels.get(f, "") in required]
    if survived:
        _insensitive(result, ", ".join(survived))
    if not report.sensitivity.planted:
        if has_faults():
            _insensitive(result, "none was planted")
        dtypes = ", ".join(report.dtypes)
        pytest.skip(
            f"{result.name} showed no difference, and no known fault would show in {dtypes} around the original"
        )


def _insensitive(result: CheckResult, names: str) -> None:
    pytest.fail(f"{result.name} is insensitive: planted faults that were not seen: {names}", pytrace=False)


def _words(result: CheckResult, finding: Finding) -> str:
    c = finding.counterexample
    at = f" at {finding.level}" if finding.level else ""
    return f"{result.name_of(finding)}{at}: {c.message}\ncase {c.case}\n{c.replay}"
