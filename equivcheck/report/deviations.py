"""Deviations: differences that a user declares, each with a reason, and some with a day on which they expire."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import TypeVar

from equivcheck.errors import UsageError
from equivcheck.report.catalogue import deviation_names
from equivcheck.report.model import CheckResult, Deviation, Finding
from equivcheck.report.outcomes import levels_with
from equivcheck.runtime.nearest_name import did_you_mean

__all__ = ["apply_deviation", "is_declared", "observed", "of_check", "parse_deviations", "undeclared"]

D = TypeVar("D")


def parse_deviations(deviations: Mapping[str, str | Deviation] | None) -> dict[str, Deviation]:
    """The deviations by the names of checks and findings.

    Args:
        deviations: A check, or a finding as `check.finding` -> the reason.

    Raises:
        UsageError: There is no such check or finding, or a reason is missing.
    """
    known = deviation_names()
    accepted = {}
    for name, given in (deviations or {}).items():
        if name not in known:
            of_check = [k for k in known if k.startswith(f"{name.partition('.')[0]}.")] if "." in name else []
            raise UsageError(
                f"unknown deviation {name!r}: it is the name of a check, or of a finding as check.finding, one of "
                f"{', '.join(of_check or known)}{did_you_mean(name, known)}"
            )
        deviation = given if isinstance(given, Deviation) else Deviation(name, str(given).strip())
        if not deviation.reason:
            raise UsageError(f"deviation {name!r} has no reason: say why the difference is accepted")
        accepted[name] = replace(deviation, name=name)
    return accepted


def apply_deviation(result: CheckResult, accepted: Mapping[str, Deviation]) -> CheckResult:
    """The result as it counts: a declared difference that has not expired is a deviation; one that is gone is a note.

    Args:
        result: The result of a check.
        accepted: The declared deviations, by name.
    """
    family = result.name.partition(".")[0]
    declared = of_check(result.name, accepted)
    if not declared:
        return result
    findings = tuple(_declared(result, finding, declared) for finding in result.shown)
    gone = [
        d for n, d in declared.items() if n != family and not any(n in _names(result.name, f.name) for f in findings)
    ]
    if result.name == family and family in declared and not findings:
        gone = [declared[family]]
    notes = (*result.notes, *(f"the declared deviation no longer shows: {d.reason}" for d in gone))
    if not findings:
        return replace(result, notes=notes)
    details = tuple(dict.fromkeys(finding.detail for finding in findings if finding.detail))
    left = [finding for finding in findings if finding.outcome == "different"]
    first = (left or findings)[0]
    return replace(
        result,
        outcome="different" if left else "deviation",
        findings=findings,
        counterexample=first.counterexample,
        worst_ratio=first.counterexample.ratio if left else result.worst_ratio,
        worst_case=first.counterexample.case if left else result.worst_case,
        levels=levels_with(result.name, findings),
        detail="; ".join(details),
        notes=notes,
    )


def of_check(check: str, declared: Mapping[str, D]) -> dict[str, D]:
    """The declarations for a check, for its family, and for one of its findings."""
    family = check.partition(".")[0]
    return {name: d for name, d in declared.items() if name in (check, family) or name.startswith(f"{check}.")}


def undeclared(results: Iterable[CheckResult], declared: Iterable[str]) -> list[str]:
    """The deviations in results that no declaration is for, each under its narrowest name."""
    known = set(declared)
    return [names[0] for result in results for names in _deviating(result) if not known & set(names)]


def observed(results: Iterable[CheckResult]) -> set[str]:
    """The names under which declared differences were seen: of their findings, checks and families."""
    return {name for result in results for names in _deviating(result) for name in names}


def _deviating(result: CheckResult) -> list[tuple[str, ...]]:
    """The names of each declared difference of a result; a report of an earlier version has no findings."""
    of_findings = [_names(result.name, finding.name) for finding in result.shown if finding.outcome == "deviation"]
    if of_findings or result.outcome != "deviation":
        return of_findings
    return [(result.name, result.name.partition(".")[0])]


def is_declared(check: str, finding: str, accepted: Mapping[str, Deviation]) -> bool:
    """Whether a finding of a check is accepted today; the empty finding is the main one."""
    deviation = next((accepted[name] for name in _names(check, finding) if name in accepted), None)
    return deviation is not None and not deviation.expired(datetime.now(UTC).date())


def _names(check: str, finding: str) -> tuple[str, ...]:
    """The names under which a finding may be declared, the narrowest first."""
    return (*((f"{check}.{finding}",) if finding else ()), check, check.partition(".")[0])


def _declared(result: CheckResult, finding: Finding, accepted: Mapping[str, Deviation]) -> Finding:
    deviation = next((accepted[name] for name in _names(result.name, finding.name) if name in accepted), None)
    if deviation is None:
        return finding
    if deviation.expired(datetime.now(UTC).date()):
        detail = f"the deviation declared for it expired on {deviation.expires}: {deviation.reason}"
        return replace(finding, detail=detail)
    return replace(finding, outcome="deviation", detail=f"declared: {deviation.reason}")
