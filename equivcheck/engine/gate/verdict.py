"""Reports compared with the source as it stands: every reason to refuse them, each in one line with the way out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from equivcheck.engine.gate.coverage import (
    dtypes_missing,
    profile_too_small,
    required_checks,
    too_few_cases,
    too_little_met,
    without_judgement,
)
from equivcheck.engine.gate.domain import narrowed, too_narrow
from equivcheck.engine.gate.environment import differences, edited, other_torch
from equivcheck.engine.gate.history import fallen_behind
from equivcheck.engine.gate.sources import AGAIN, stale, uncovered
from equivcheck.errors import UsageError
from equivcheck.report.catalogue import CATALOGUE
from equivcheck.report.deviations import observed, parse_deviations, undeclared
from equivcheck.report.model import SCHEMA_VERSION, Deviation, Report

__all__ = ["GatePolicy", "notes", "violations"]

_CLOCKS_APART = timedelta(minutes=10)


@dataclass(frozen=True, kw_only=True)
class GatePolicy:
    """The requirements on a set of reports, beyond being complete, fresh, sensitive and green."""

    checks: tuple[str, ...] = ()  # empty: all that apply to the kind of the pair
    exclude: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()  # such as cuda, or a part of a GPU's name
    min_profile: str = "gate"
    min_coverage: Mapping[str, float] = field(default_factory=dict)  # strength -> the least share that is met
    dtypes: tuple[str, ...] | None = None  # None: all that run
    require: tuple[str, ...] | None = None  # levels; None: those that the report requires
    torch: str | None = None  # a version, or the first parts of one
    strict_environment: bool = False  # whether another version of torch or of a package is refused
    pair: tuple[str, str] | None = None
    max_age: timedelta | None = None
    domain: str | None = None  # the cases that the domain of a report must have
    deviations: Mapping[str, str | Deviation] = field(default_factory=dict)
    root: Path = field(default_factory=Path.cwd)
    package: Path = Path(__file__).parents[2]
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


def violations(
    reports: Mapping[str, Report], policy: GatePolicy, against: tuple[str, Report] | None = None
) -> Iterator[str]:
    """Each reason to refuse these reports, which are judged together; without one they are green.

    Args:
        reports: Name of a file -> the report in it.
        policy: The requirements.
        against: The name and content of an older report; that of the same pair and device must not fall behind it.

    Raises:
        UsageError: A report is of a shard, no report is of the pair and device of `against`, or the policy names an
            unknown check.
    """
    for file, report in (*reports.items(), *((against,) if against is not None else ())):
        if report.shard is not None:
            raise UsageError(
                f"{file}: of shard {report.shard.number}/{report.shard.of} alone, which is no evidence; give the report "
                "that equivcheck merge makes of all shards"
            )
    known = [check.name for check in CATALOGUE]
    for name in (*policy.checks, *policy.exclude):
        if name not in known:
            raise UsageError(f"unknown check {name!r}: allowed are {', '.join(known)}")
    parse_deviations(policy.deviations)
    for name, report in reports.items():
        for reason in _of_one(report, policy):
            yield f"{name}: {reason}"
    yield from _of_all(reports, policy)
    if against is not None:
        yield from fallen_behind(reports, *against)


def notes(reports: Mapping[str, Report], policy: GatePolicy) -> Iterator[str]:
    """Facts that are no violations: gaps in the evidence, another environment, checks that judged nothing."""
    for name, report in reports.items():
        of_one = [*uncovered(report, policy.root)]
        if policy.domain is None:
            of_one += narrowed(report)
        if not policy.strict_environment:
            of_one += differences(report)
        of_one += without_judgement(report, required_checks(report, policy.checks, policy.exclude))
        yield from (f"{name}: {note}" for note in of_one)


def _of_one(report: Report, policy: GatePolicy) -> Iterator[str]:
    if not report.complete or not report.results:
        yield f"partial: the run was cut short and proves nothing; {AGAIN}, and let it end"
    if report.schema_version == SCHEMA_VERSION and not report.sealed:
        yield f"unsealed: the pair ran in the process that made the verdict; {AGAIN} of import strings"
    for finding in report.findings:
        yield f"{finding}; mend the candidate"
    yield from stale(report, policy.root, policy.package)
    yield from edited(report)
    if policy.strict_environment:
        yield from (
            f"{difference}; {AGAIN} here, or leave --strict-environment out" for difference in differences(report)
        )
    if policy.torch is not None:
        yield from other_torch(report, policy.torch)
    if policy.max_age is not None:
        yield from _aged(report, policy.max_age, policy.now)
    if policy.domain is not None:
        yield from too_narrow(report, policy.domain)
    yield from profile_too_small(report, policy.min_profile)
    yield from too_little_met(report, policy.min_coverage)
    if report.schema_version == SCHEMA_VERSION:  # an older one is stale, and recorded none
        yield from dtypes_missing(report, policy.dtypes)
        checks = required_checks(report, policy.checks, policy.exclude)
        yield from too_few_cases(report, checks, policy.dtypes)
    report = replace(report, require=policy.require or report.required)
    yield from _levels(report)
    survived = report.survived
    if report.sensitivity.skipped and report.verdict == "different":
        return
    if survived:
        yield f"insensitive: planted faults survived ({', '.join(survived)}); {AGAIN} with more cases (--profile gate)"
    elif report.verdict == "not refuted":
        yield f"not refuted: a screen never says equivalent; {AGAIN} with --profile gate"
    elif not report.sensitivity.planted:
        yield f"insensitive: no fault was planted; {AGAIN} with all checks"
    if report.verdict not in ("equivalent", "different", "insensitive", "partial", "not judged", "not refuted"):
        yield f"its verdict is {report.verdict}; see equivcheck report on the file"


def _levels(report: Report) -> Iterator[str]:
    """The differences at required levels, and required levels at which nothing was judged."""
    for result in report.shown:
        for finding in result.shown:
            if finding.outcome == "different" and (not finding.level or finding.level in report.require):
                at = f" at {finding.level}" if finding.level else ""
                yield (
                    f"check {result.name_of(finding)} is different{at}; mend the candidate (the report has the case), "
                    "or declare a deviation"
                )
        if result.outcome == "different" and not result.shown:
            yield f"check {result.name} is different; mend the candidate, or declare a deviation"
    for level in report.require:
        if report.levels[level] == "not judged":
            names = [r.name for r in report.results if r.levels.get(level) == "not judged"]
            what = f"nothing was compared in {', '.join(names)}" if names else "no check of it was run"
            yield f"level {level} is required and was not judged: {what}; {AGAIN}, or require others with --require"


def _aged(report: Report, max_age: timedelta, now: datetime) -> Iterator[str]:
    try:
        created = datetime.fromisoformat(report.created)
        age = now - (created if created.tzinfo else created.replace(tzinfo=UTC))
    except ValueError:
        yield f"its date {report.created!r} is none; {AGAIN}"
        return
    if age > max_age:
        yield f"too old: {_days(age)} where --max-age allows {_days(max_age)}; {AGAIN}"
    elif age < -_CLOCKS_APART:
        yield f"its date {report.created} is later than this machine's clock; set the clock, or {AGAIN}"


def _of_all(reports: Mapping[str, Report], policy: GatePolicy) -> Iterator[str]:
    where = ", ".join(sorted({report.device for report in reports.values()}))
    for device in policy.devices:
        if not any(device.lower() in report.device.lower() for report in reports.values()):
            yield (
                f"device {device} is required, and the reports are from {where}; "
                "run verify on it, and give that file too"
            )
    if policy.pair is not None and all((r.reference, r.candidate) != policy.pair for r in reports.values()):
        reference, candidate = policy.pair
        yield (
            f"no report is of {candidate} against {reference}, the pair of [tool.equivcheck]; "
            f"{AGAIN}, and give its file"
        )
    # the config is newer than a report: its deviations replace those of the report
    declared = {d.name: d for report in reports.values() for d in report.deviations}
    for name, given in policy.deviations.items():
        declared[name] = given if isinstance(given, Deviation) else Deviation(name, given)
    seen = {name for r in reports.values() for name in observed(r.results)}
    for name, deviation in declared.items():
        if deviation.expired(policy.now.date()):
            yield (
                f"deviation {name} expired on {deviation.expires} ({deviation.reason}); "
                "mend the candidate, or give it a later date"
            )
        if name not in seen:
            yield f"deviation {name} is declared and no longer observed ({deviation.reason}); take the declaration away"
    for name in sorted({n for r in reports.values() for n in undeclared(r.results, declared)}):
        yield f"deviation {name} has no reason in the report; {AGAIN} with the declaration"


def _days(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours"
