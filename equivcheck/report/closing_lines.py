"""The single lines of a run's closing text: title, number of faults caught, verdict, and evidence."""

from collections.abc import Sequence

from equivcheck.report.clean_text import one_line
from equivcheck.report.model import CheckResult, Report

__all__ = ["counted_checks", "domain_lines", "evidence_line", "sensitivity_line", "title", "verdict_line"]


def title(report: Report) -> str:
    """The candidate, the reference, and the kind, profile and seed of the run, in one line."""
    pair = f"{report.candidate} against {report.reference}"
    return one_line(f"{pair} ({report.kind}, profile {report.profile}, seed {report.seed})")


def sensitivity_line(report: Report) -> str:
    """The numbers of faults that were planted, caught and not planted, with the survivors by name."""
    of = report.sensitivity
    parts = [
        f"{_count(len(of.planted), 'fault')} planted, {of.caught} caught" if of.planted else "no fault was planted"
    ]
    if of.survived:
        parts.append(f"survived: {', '.join(of.survived)}")
    if of.without_effect:
        parts.append(f"{len(of.without_effect)} left out, as nothing of them would show here")
    if of.untried:
        parts.append(f"out of time before {len(of.untried)} more")
    return one_line(f"sensitivity: {'; '.join(parts)}")


def domain_lines(report: Report) -> list[str]:
    """The domain in one line; none if every case is in it."""
    return [one_line(f"domain: {report.domain}")] if report.domain else []


def verdict_line(report: Report) -> str:
    """The verdict in one line: its word first, then the cases, checks and faults that it rests on."""
    facts = [_count(report.cases, "case"), counted_checks(report.results), _device(report)]
    planted, survived = report.sensitivity.planted, report.sensitivity.survived
    match report.verdict:
        case "different":
            names = [result.name for result in report.results if result.outcome == "different"]
            facts.insert(0, ", ".join([*names, *report.findings]))
            if not report.complete:
                facts.append("partial: the run was cut short")
        case "unsupported":
            refused = [r.name for r in report.results if r.unsupported or r.outcome == "unsupported"]
            facts.insert(0, f"{', '.join(refused)}, and the run is strict")
        case "insensitive" if survived:
            of_all = f"{len(survived)} of {_count(len(planted), 'planted fault')}"
            facts.insert(0, f"{of_all} survived ({', '.join(survived)})")
        case "insensitive":
            facts.insert(0, "no fault was planted")
        case "partial":
            facts.insert(0, "the run was cut short and proves nothing")
        case _:
            facts.append(f"{report.sensitivity.caught} of {_count(len(planted), 'planted fault')} caught")
    if report.options_not_judged:
        facts.append(f"not judged, as the original alone takes them: {', '.join(report.options_not_judged)}")
    if not report.sealed:
        facts.append("unsealed")
    facts.append(f"{report.seconds:.1f} s")
    return one_line(f"{report.verdict}: {', '.join(facts)}")


def evidence_line(report: Report) -> str:
    """The evidence in one line: profile, dtypes, cases, torch, and the numbers of covered files and packages."""
    files = {name for part, names in report.files.items() if part != "equivcheck" for name in names}
    facts = [f"profile {report.profile}"]
    facts += [f"dtypes {' '.join(report.dtypes)}"] if report.dtypes else []
    facts += [_count(report.cases, "case"), f"torch {report.environment.get('torch', 'not recorded')}"]
    facts.append(f"{_count(len(files), 'file')} and {_count(len(report.packages), 'package')} of the pair")
    return one_line(f"evidence: {', '.join(facts)}")


def counted_checks(results: Sequence[CheckResult]) -> str:
    """The number of checks, and how many of them are a deviation or unsupported."""
    apart = []
    for outcome in ("deviation", "unsupported"):
        if count := sum(result.outcome == outcome for result in results):
            apart.append(f"{count} {outcome}")
    return _count(len(results), "check") + (f" ({', '.join(apart)})" if apart else "")


def _device(report: Report) -> str:
    device, _, rest = report.device.partition(" (")  # a GPU's name stands in brackets behind it
    known = [rest.removesuffix(")")] if rest else []
    if torch := report.environment.get("torch"):
        known.append(f"torch {torch}")
    return device + (f" ({', '.join(known)})" if known else "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
