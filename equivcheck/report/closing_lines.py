"""The single lines of a run's closing text: title, number of faults caught, verdict, and evidence."""

from collections import Counter
from collections.abc import Sequence

from equivcheck.report.clean_text import one_line
from equivcheck.report.coverage import STRENGTHS, in_words, smallest
from equivcheck.report.levels import LEVELS
from equivcheck.report.model import CheckResult, Report

__all__ = [
    "counted_checks",
    "coverage_lines",
    "domain_lines",
    "evidence_line",
    "levels_line",
    "now",
    "remembered_lines",
    "sensitivity_line",
    "shortened_lines",
    "title",
    "verdict_line",
]


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
    if of.skipped:
        parts.append(of.skipped)
    if of.survived:
        parts.append(f"survived: {', '.join(of.survived)}")
    if of.without_effect:
        parts.append(f"{len(of.without_effect)} left out, as nothing of them would show here")
    if of.untried:
        parts.append(f"out of time before {len(of.untried)} more")
    return one_line(f"sensitivity: {'; '.join(parts)}")


def levels_line(report: Report) -> str:
    """The outcome at each level in one line; a level that is not required says so."""
    required = report.required
    parts = [f"{level} {what}{'' if level in required else ' (not required)'}" for level, what in report.levels.items()]
    return f"levels: {', '.join(parts)}"


def domain_lines(report: Report) -> list[str]:
    """The domain in one line; none if every case is in it."""
    return [one_line(f"domain: {report.domain}")] if report.domain else []


def shortened_lines(report: Report) -> list[str]:
    """The checks of which only the first cases were run, in one line; none if every check ran all of its cases."""
    names = [result.name for result in report.results if result.shortened]
    if not names:
        return []
    reason = "what they look at is different without them, and --all runs the rest"
    return [one_line(f"shortened: of {', '.join(names)} only the first cases were run: {reason}")]


def remembered_lines(report: Report) -> list[str]:
    """The number of remembered counterexamples, and of those that differ still, in one line; none without any."""
    if not report.remembered:
        return []
    by_word = Counter(now(result) for result in report.remembered)
    parts = [f"{count} {_plural(word) if count > 1 else word}" for word, count in sorted(by_word.items())]
    return [f"{_count(len(report.remembered), 'remembered counterexample')}: {', '.join(parts)}"]


def coverage_lines(report: Report) -> list[str]:
    """The smallest share of pairs and of triples of classes that are met, each with its check; none if none counts."""
    counted = [(strength, of) for strength in STRENGTHS if (of := smallest(report, strength)) is not None]
    parts = [f"{strength} {in_words(counts, f' in {check}')}" for strength, (check, counts) in counted]
    return [one_line(f"smallest coverage: {', '.join(parts)}")] if parts else []


def now(result: CheckResult) -> str:
    """The outcome of a remembered counterexample, as the end of a sentence."""
    return {"different": "differs", "equivalent": "passes now"}.get(result.outcome, f"is {result.outcome}")


def _plural(word: str) -> str:
    verb, space, rest = word.partition(" ")
    return f"{ {'differs': 'differ', 'passes': 'pass', 'is': 'are'}[verb] }{space}{rest}"


def verdict_line(report: Report) -> str:
    """The verdict in one line: its word first, then the levels, cases, checks and faults that it rests on."""
    facts = [_count(report.cases, "case"), counted_checks(report.results), _device(report)]
    planted, survived = report.sensitivity.planted, report.survived
    word = report.verdict
    match report.verdict:
        case "different":
            word, differing = _different(report)
            facts.insert(0, differing)
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
        case "not judged":
            nothing = [r.name for r in report.results if r.in_vain or "not judged" in r.levels.values()]
            facts.insert(0, f"nothing was compared in {', '.join(nothing) or 'a required level'}")
        case "not refuted":
            facts.insert(0, "a screen shows differences, and never that there is none: run --profile gate")
        case _ if report.shard is not None:
            facts.insert(0, "no difference in its part of the cases: equivcheck merge judges all parts together")
        case _:
            word = _equivalent(report)
            facts.append(f"{report.sensitivity.caught} of {_count(len(planted), 'planted fault')} caught")
    if report.verdict != "partial":
        facts += _apart(report)
    if report.options_not_judged:
        facts.append(f"not judged, as the original alone takes them: {', '.join(report.options_not_judged)}")
    if not report.sealed:
        facts.append("unsealed")
    facts.append(f"{report.seconds:.1f} s")
    return one_line(f"{word}: {', '.join(facts)}")


def _different(report: Report) -> tuple[str, str]:
    """The word with the levels that differ, and what differs, with the levels that do not."""
    levels = report.levels
    at = [level for level in LEVELS if levels[level] == "different"]
    same = [level for level in LEVELS if levels[level] in ("equivalent", "deviation", "unsupported")]
    names = [name for result in report.results if not result.shortened for name in result.differing]
    names += report.findings
    again = [name for result in report.shown[len(report.results) :] for name in result.differing]
    names += [f"{name} on a remembered case" for name in dict.fromkeys(again)]
    if repeated := sum(result.shortened and result.outcome == "different" for result in report.results):
        names.append(f"and so {'is' if repeated == 1 else 'are'} {_count(repeated, 'more check')}")
    if not at:
        return "different", ", ".join(names)
    equivalent = f"{_listed(same)} {'is' if len(same) == 1 else 'are'} equivalent; " if same else ""
    return f"different at {_listed(at)}", f"{equivalent}{', '.join(names)}"


def _equivalent(report: Report) -> str:
    """The word, with the levels if some that checks looked at is not required, or not equivalent."""
    levels = report.levels
    reached = [level for level in report.required if levels[level] != "not applicable"]
    seen = {level for result in report.shown for level in result.levels}
    if not reached or (
        all(levels[level] in ("equivalent", "not applicable") for level in seen) and seen <= {*report.required}
    ):
        return "equivalent"
    return f"equivalent at {_listed(reached)}"


def _apart(report: Report) -> list[str]:
    """The levels that are not required, if something is to be said of them, and the numbers of what was not judged."""
    facts = []
    for level, outcome in report.levels.items():
        ran = any(level in result.levels for result in report.shown)
        if level in report.required or outcome == "equivalent" or not ran:
            continue
        if outcome == "different" and report.verdict != "different":
            names = [name for r in report.shown if r.levels.get(level) == "different" for name in r.differing]
            facts.append(f"{level} is different and not required ({', '.join(names)})")
        elif outcome in ("not judged", "not applicable"):
            facts.append(f"{level} is {outcome}")
    facts += [f"{level} is not applicable" for level in report.required if report.levels[level] == "not applicable"]
    reasons = Counter[str]()
    for result in report.results:
        reasons.update(result.not_judged)
    if reasons:
        by_reason = ", ".join(f"{number} {reason}" for reason, number in reasons.most_common())
        facts.append(f"{_count(reasons.total(), 'case')} not judged ({by_reason})")
    return facts


def _listed(names: Sequence[str]) -> str:
    """Names in a sentence: `a, b and c`."""
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1]))) if names else ""


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
    for outcome in ("deviation", "unsupported", "not judged", "not applicable"):
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
