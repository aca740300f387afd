"""What the gate says of reports: its reasons to refuse, and its notes."""

from pathlib import Path

from green_reports import NOW

from equivcheck.engine.gate.verdict import GatePolicy, notes, violations
from equivcheck.report.model import Report


def reasons_of(tree: Path, *reports: Report, against: Report | None = None, **demands: object) -> list[str]:
    options = {"root": tree, "package": tree / "equivcheck", "now": NOW, **demands}
    named = {f"report{number}": report for number, report in enumerate(reports)}
    old = None if against is None else ("old", against)
    return list(violations(named, GatePolicy(**options), old))  # type: ignore[arg-type]


def noted(tree: Path, *reports: Report, **demands: object) -> list[str]:
    options = {"root": tree, "package": tree / "equivcheck", "now": NOW, **demands}
    named = {f"report{number}": report for number, report in enumerate(reports)}
    return list(notes(named, GatePolicy(**options)))  # type: ignore[arg-type]


def the_reason(tree: Path, *reports: Report, **demands: object) -> str:
    (reason,) = reasons_of(tree, *reports, **demands)  # type: ignore[arg-type]
    assert "\n" not in reason
    assert "; " in reason, "no way out"
    return reason
