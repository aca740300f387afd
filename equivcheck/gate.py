"""Reports held against the source as it stands: every reason why they do not carry it, each in one line with the way out."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from equivcheck.checks import CHECKS
from equivcheck.errors import UsageError
from equivcheck.implementation import find, hash_of
from equivcheck.provenance import digests, rooms
from equivcheck.report.model import Deviation, Report

__all__ = ["Demands", "refusals"]

_AGAIN = "run equivcheck verify again"
_GROWTH = 1.5  # a ratio that grew by more than half is worth a look, long before it reaches 1
_CLOCKS_APART = timedelta(minutes=10)
_ROLES = ("reference", "candidate")


@dataclass(frozen=True, kw_only=True)
class Demands:
    """What a set of reports has to show, beyond being complete, fresh, sensitive and green."""

    checks: tuple[str, ...] = ()  # empty: all that apply to the kind of the pair
    exclude: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()  # such as cuda, or a part of a GPU's name
    pair: tuple[str, str] | None = None
    max_age: timedelta | None = None
    tripwire: float | None = None  # how many percent a candidate may have become slower
    deviations: Mapping[str, str | Deviation] = field(default_factory=dict)
    root: Path = field(default_factory=Path.cwd)
    package: Path = Path(__file__).parent
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


def refusals(
    reports: Mapping[str, Report], demands: Demands, against: tuple[str, Report] | None = None
) -> Iterator[str]:
    """Each reason to refuse these reports (by the names of their files), which are judged together; none: they are green.

    `against` is an older report, which the one of the same pair and device must not fall behind. Raises UsageError where
    there is nothing to hold against it, or a check is named that there is not.
    """
    known = [check.name for check in CHECKS]
    for name in (*demands.checks, *demands.exclude, *demands.deviations):
        if name not in known:
            raise UsageError(f"unknown check {name!r}: allowed are {', '.join(known)}")
    for name, report in reports.items():
        for reason in _of_one(report, demands):
            yield f"{name}: {reason}"
    yield from _of_all(reports, demands)
    if against is not None:
        old_name, old = against
        fitting = [(name, report) for name, report in reports.items() if _place(report) == _place(old)]
        if not fitting:
            raise UsageError(
                f"--against {old_name}: it is of {old.candidate} on {old.device}, and no other file is; give one of the same two"
            )
        for name, report in fitting:
            for reason in _behind(report, old, demands.tripwire):
                yield f"{name}: {reason}"
    elif demands.tripwire is not None:
        raise UsageError("--tripwire without --against: there is no older report to be slower than; give one")


def _of_one(report: Report, demands: Demands) -> Iterator[str]:
    if not report.complete or not report.results:
        yield f"partial: the run was cut short and proves nothing; {_AGAIN}, and let it end"
    yield from _stale(report, demands)
    if demands.max_age is not None:
        yield from _aged(report, demands.max_age, demands.now)
    judged = {result.name for result in report.results}
    required = demands.checks or tuple(
        c.name for c in CHECKS if report.kind in c.kinds and c.name not in demands.exclude
    )
    for name in required:
        if name not in judged:
            yield (
                f"check {name} is required and was not run; {_AGAIN} with it, or list it under exclude in [tool.equivcheck]"
            )
    for result in report.results:
        if result.outcome == "different":
            yield f"check {result.name} is different; mend the candidate (the report has the case), or declare a deviation"
    survived = report.sensitivity.survived
    if survived:
        yield f"insensitive: planted faults survived ({', '.join(survived)}); {_AGAIN} with more cases (--profile gate)"
    elif not report.sensitivity.planted:
        yield f"insensitive: no fault was planted; {_AGAIN} with all checks"
    if report.verdict not in ("equivalent", "different", "insensitive", "partial"):
        yield f"its verdict is {report.verdict}; see equivcheck report on the file"


def _stale(report: Report, demands: Demands) -> Iterator[str]:
    """What was changed since the run: a file of the pair, or a room of equivcheck that judges."""
    if report.sources != digests(report.files):
        yield f"stale: it does not tell which files it was made from (an older equivcheck wrote it); {_AGAIN}"
        return
    for role in _ROLES:
        recorded = report.files.get(role, {})
        if not recorded:
            yield f"stale: the {role} has no file that could be compared; give the pair to verify as import strings"
        for name, sha in recorded.items():
            file = find(name, demands.root)
            if file is None:
                yield (
                    f"stale: {name} ({role}) is not here; {_AGAIN}, or run the gate in the folder where verify was run (--root)"
                )
            elif hash_of(file) != sha:
                yield f"stale: {name} ({role}) was changed after the run; {_AGAIN}"
    here, recorded = rooms(demands.package), report.files.get("equivcheck", {})
    changed = [name for name in sorted({*here, *recorded}) if here.get(name) != recorded.get(name)]
    if changed:
        more = f" and {len(changed) - 3} more files" if len(changed) > 3 else ""
        yield f"stale: equivcheck judges differently since the run ({', '.join(changed[:3])}{more}); {_AGAIN}"


def _aged(report: Report, max_age: timedelta, now: datetime) -> Iterator[str]:
    try:
        created = datetime.fromisoformat(report.created)
        age = now - (created if created.tzinfo else created.replace(tzinfo=UTC))
    except ValueError:
        yield f"its date {report.created!r} is none; {_AGAIN}"
        return
    if age > max_age:
        yield f"too old: {_days(age)} where --max-age allows {_days(max_age)}; {_AGAIN}"
    elif age < -_CLOCKS_APART:
        yield f"its date {report.created} lies ahead of this machine's clock; set the clock, or {_AGAIN}"


def _of_all(reports: Mapping[str, Report], demands: Demands) -> Iterator[str]:
    where = ", ".join(sorted({report.device for report in reports.values()}))
    for device in demands.devices:
        if not any(device.lower() in report.device.lower() for report in reports.values()):
            yield f"device {device} is required, and the reports are from {where}; run verify on it, and give that file too"
    if demands.pair is not None and all((r.reference, r.candidate) != demands.pair for r in reports.values()):
        reference, candidate = demands.pair
        yield f"no report is of {candidate} against {reference}, the pair of [tool.equivcheck]; {_AGAIN}, and give its file"
    # the config is newer than a report: what it says of a deviation holds
    declared = {d.name: d for report in reports.values() for d in report.deviations}
    for name, given in demands.deviations.items():
        declared[name] = given if isinstance(given, Deviation) else Deviation(name, given)
    seen = {result.name for r in reports.values() for result in r.results if result.outcome == "deviation"}
    for name, deviation in declared.items():
        if deviation.expired(demands.now.date()):
            yield (
                f"deviation {name} expired on {deviation.expires} ({deviation.reason}); mend the candidate, or give it a later date"
            )
        if name not in seen:
            yield f"deviation {name} is declared and no longer observed ({deviation.reason}); take the declaration away"
    for name in sorted(seen - set(declared)):
        yield f"deviation {name} has no reason in the report; {_AGAIN} with the declaration"


def _behind(new: Report, old: Report, tripwire: float | None) -> Iterator[str]:
    """In what a report has fallen behind an older one of the same pair and device."""
    results = {result.name: result for result in new.results}
    order = ("equivalent", "deviation", "unsupported", "different")
    for before in old.results:
        after = results.get(before.name)
        if after is None:
            yield f"check {before.name} was {before.outcome} and is gone; {_AGAIN} with it"
            continue
        if order.index(after.outcome) > order.index(before.outcome):
            yield f"check {before.name} was {before.outcome} and is {after.outcome}; mend the candidate"
        if before.worst_ratio and after.worst_ratio and after.worst_ratio > _GROWTH * before.worst_ratio:
            yield (
                f"check {before.name}: the worst ratio grew from {before.worst_ratio:.3g} to {after.worst_ratio:.3g}, "
                "by more than half; find out why, or take the new report for the old one"
            )
    for problem, kernel in old.kernels.items():
        now = new.kernels.get(problem)
        if now is not None and now != kernel:
            yield f"kernel of {problem} was {kernel} and is {now}; find out why, or take the new report for the old one"
    if tripwire is not None:
        yield from _slower(new, old, tripwire)


def _slower(new: Report, old: Report, tripwire: float) -> Iterator[str]:
    versions = [report.environment.get("torch", "").split("+")[0].split(".")[:2] for report in (old, new)]
    if versions[0] != versions[1]:
        raise UsageError("--tripwire: the two reports are of different torch versions; times are compared within one")
    timed = [name for name, record in old.performance.items() if record.speed_up]
    if not timed:
        raise UsageError("--tripwire: the older report has no record of speed; compare with equivcheck bench --against")
    for name in timed:
        before, record = old.performance[name].speed_up or 0.0, new.performance.get(name)
        if record is None or record.speed_up is None:
            yield f"speed of {name} is not recorded; measure it again with equivcheck bench"
        elif before > record.speed_up * (1 + tripwire / 100):
            slower = 100 * (before / record.speed_up - 1)
            yield (
                f"{name} became {slower:.0f} % slower against the original, where {tripwire:g} % is allowed; "
                "measure again, then mend the candidate"
            )


def _place(report: Report) -> tuple[str, ...]:
    return (report.reference, report.candidate, report.kind, report.device)


def _days(age: timedelta) -> str:
    hours = age.total_seconds() / 3600
    return f"{hours / 24:.1f} days" if hours >= 48 else f"{hours:.1f} hours"
