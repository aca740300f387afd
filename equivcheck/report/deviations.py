"""Deviations: differences that a user declares, each with a reason, and some with a day on which they expire."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime

from equivcheck.errors import UsageError
from equivcheck.report.catalogue import deviation_names
from equivcheck.report.model import CheckResult, Deviation, Finding
from equivcheck.report.outcomes import levels_with

__all__ = ["apply_deviation", "observed", "parse_deviations"]


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
                f"{', '.join(of_check or known)}"
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
    declared = {n: d for n, d in accepted.items() if n in (result.name, family) or n.startswith(f"{result.name}.")}
    if not declared:
        return result
    findings = tuple(_declared(result, finding, declared) for finding in result.shown)
    gone = [d for n, d in declared.items() if n != family and not any(n in _names(result, f) for f in findings)]
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


def observed(results: Iterable[CheckResult]) -> set[str]:
    """The names under which declared differences were seen: of their findings, checks and families."""
    names: set[str] = set()
    for result in results:
        if result.outcome == "deviation":
            names |= {result.name, result.name.partition(".")[0]}
        for finding in result.findings:
            if finding.outcome == "deviation":
                names.update(_names(result, finding))
    return names


def _names(result: CheckResult, finding: Finding) -> tuple[str, ...]:
    """The names under which a finding may be declared, the narrowest first."""
    family = result.name.partition(".")[0]
    return (*((f"{result.name}.{finding.name}",) if finding.name else ()), result.name, family)


def _declared(result: CheckResult, finding: Finding, accepted: Mapping[str, Deviation]) -> Finding:
    deviation = next((accepted[name] for name in _names(result, finding) if name in accepted), None)
    if deviation is None:
        return finding
    if deviation.expired(datetime.now(UTC).date()):
        detail = f"the deviation declared for it expired on {deviation.expires}: {deviation.reason}"
        return replace(finding, detail=detail)
    return replace(finding, outcome="deviation", detail=f"declared: {deviation.reason}")
