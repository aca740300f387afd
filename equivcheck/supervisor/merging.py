"""The report of a whole run, made of the reports of its shards."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from equivcheck.report.case_outcomes import Searched
from equivcheck.report.deviations import observed
from equivcheck.report.model import CheckResult, Combinations, Deviation, Package, Report, Sensitivity
from equivcheck.report.provenance import digests
from equivcheck.report.shard import Shard, ShardPiece
from equivcheck.report.time_spent import TimeSpent
from equivcheck.supervisor.checked import Checked
from equivcheck.supervisor.differences import first_failing
from equivcheck.supervisor.results import result_of_check, result_without_classes
from equivcheck.supervisor.shard_faults import sensitivity_over
from equivcheck.supervisor.shards_of_one_run import refuse_other_runs, shard_of

__all__ = ["Merged", "merged"]


@dataclass(frozen=True)
class Merged:
    """The report of all shards, and in words the shards that are missing, there twice, or cut short."""

    report: Report
    gaps: tuple[str, ...]


def merged(reports: Sequence[tuple[str, Report]]) -> Merged:
    """The report that a run without shards makes, but for times; `partial` if a shard is missing or there twice.

    Args:
        reports: The name of each file, and the report in it.

    Raises:
        UsageError: One of them is no report of a shard, or two are of different runs.
    """
    refuse_other_runs(reports)
    given = [report for _, report in reports]
    gaps = _gaps(given)
    by_number = {shard_of(report).number: report for report in reversed(given)}
    parts = [by_number[number] for number in sorted(by_number)]
    whole = not gaps and all(report.complete for report in parts)
    died = next((r for r in parts if r.results and not shard_of(r).plan_sha256), None)
    planned = [report for report in parts if shard_of(report).plan_sha256]
    if died is not None:  # while it was loaded: there is nothing else
        return Merged(replace(died, complete=whole, shard=None), gaps)
    if not planned:
        return Merged(replace(parts[0], complete=False, shard=None), gaps)
    return Merged(_together(planned, whole=whole, gaps=gaps), gaps)


def _gaps(reports: Sequence[Report]) -> tuple[str, ...]:
    shards = [shard_of(report) for report in reports]
    numbers = [shard.number for shard in shards]
    of = shards[0].of
    missing = [f"shard {n}/{of} is missing" for n in range(1, of + 1) if n not in numbers]
    twice = [f"shard {n}/{of} is there {numbers.count(n)} times" for n in sorted(set(numbers)) if numbers.count(n) > 1]
    short = [f"{shard_of(report).name} was cut short" for report in reports if not report.complete]
    return (*missing, *twice, *short)


def _together(parts: Sequence[Report], *, whole: bool, gaps: Sequence[str]) -> Report:
    base, shards = parts[0], [shard_of(report) for report in parts]
    accepted = {deviation.name: deviation for deviation in base.deviations}
    counting = {check.name: _counting(shards, check.name) for check in shards[0].plan}
    checked = _checked(shards, counting, accepted)
    if checked.results:
        first = checked.results[0]
        before = (*gaps, *shards[0].notes_before)
        after = dict.fromkeys(note for shard in shards for note in shard.notes_after)
        checked.results[0] = replace(first, notes=(*before, *first.notes, *after))
    judged = checked.judged()
    seen = observed(checked.results)
    files = _files(parts)
    report = replace(
        base,
        results=tuple(checked.results),
        sensitivity=Sensitivity(),
        complete=whole,
        seconds=sum(part.seconds for part in parts),
        created=min(part.created for part in parts),  # evidence is as old as its oldest part
        environment=_environment(parts),
        sources=digests(files),
        files=files,
        packages=_packages(parts),
        not_covered=_once(part.not_covered for part in parts),
        kernels=checked.kernels(),
        deviations=tuple(replace(d, observed=d.name in seen) for d in base.deviations),
        findings=_once(part.findings for part in parts),
        sealed=all(part.sealed for part in parts),
        coverage=_coverage(shards, judged, counting),
        time_spent=_time_spent(parts),
        shard=None,
    )
    if replace(report, complete=True).verdict == "different":
        return replace(report, sensitivity=Sensitivity(skipped="the run is different"))
    sensitivity = sensitivity_over(shards, judged, seconds=sum(part.sensitivity.seconds for part in parts))
    return replace(report, sensitivity=sensitivity, complete=whole and not sensitivity.untried)


def _counting(shards: Sequence[Shard], check: str) -> list[ShardPiece]:
    """The classes of a check's cases in the order in which a whole run has them, up to the first that fails."""
    pieces = [piece for shard in shards for piece in shard.pieces if piece.check == check]
    pieces.sort(key=lambda piece: (not piece.failed_first, piece.number))
    failing = next((at for at, piece in enumerate(pieces) if piece.minimal is not None), len(pieces))
    return pieces[: failing + 1]


def _checked(
    shards: Sequence[Shard], counting: Mapping[str, Sequence[ShardPiece]], accepted: Mapping[str, Deviation]
) -> Checked:
    """The results of the checks of the plan, each of the cases of all shards."""
    refused, plan = shards[0].refused, [asdict(check) for check in shards[0].plan]
    results: list[CheckResult] = []
    searched: dict[str, Searched] = {}
    for check in plan:
        name = check["name"]
        if not counting[name]:
            if not check["classes"]:
                searched[name] = Searched()
                results.append(result_without_classes(name, refused))
            continue
        searched[name] = of_check = first_failing([piece.searched() for piece in counting[name]])
        further = [one.searched() for shard in shards for one in shard.further if one.check == name]
        results.append(result_of_check(check, of_check, further, refused=refused, accepted=accepted))
    return Checked(results=results, _plan={"checks": plan}, _searched=searched)


def _coverage(
    shards: Sequence[Shard], judged: Mapping[str, Any], counting: Mapping[str, Sequence[ShardPiece]]
) -> dict[str, dict[str, Combinations]]:
    """The combinations that the judged cases of all shards meet: those that no class of cases meets are not met."""
    coverage: dict[str, dict[str, Combinations]] = {}
    for name in judged:
        numbers = {piece.number for piece in counting[name]}
        of_check = [record for shard in shards for record in shard.coverage if record.check == name]
        records = [record for record in of_check if record.number in numbers]
        for strength in dict.fromkeys(record.strength for record in records):
            of_strength = [record for record in records if record.strength == strength]
            left = {reason: int(bits, 16) for reason, bits in of_strength[0].not_met.items()}
            for record in of_strength[1:]:
                left = {reason: bits & int(record.not_met[reason], 16) for reason, bits in left.items()}
            counts = {reason: bits.bit_count() for reason, bits in left.items()}
            of = of_strength[0].of
            coverage.setdefault(name, {})[strength] = Combinations(
                of - counts["not judged"], of, {reason: count for reason, count in counts.items() if count}
            )
    return coverage


def _files(parts: Sequence[Report]) -> dict[str, dict[str, str]]:
    files: dict[str, dict[str, str]] = {}
    for part in parts:
        for name, hashes in part.files.items():
            files.setdefault(name, {}).update(hashes)
    return files


def _packages(parts: Sequence[Report]) -> dict[str, Package]:
    return {name: package for part in parts for name, package in part.packages.items()}


def _environment(parts: Sequence[Report]) -> dict[str, str]:
    """The facts of all machines: where they differ in one, as in the number of threads, each is named."""
    names = dict.fromkeys(name for part in parts for name in part.environment)
    return {
        name: " and ".join(dict.fromkeys(part.environment[name] for part in parts if name in part.environment))
        for name in names
    }


def _time_spent(parts: Sequence[Report]) -> TimeSpent | None:
    """The seconds of all processes of all shards; None if one of them did not count them."""
    counted = [part.time_spent for part in parts if part.time_spent is not None]
    if len(counted) < len(parts):
        return None
    stages: dict[str, dict[str, float]] = {}
    for one in counted:
        for stage, seconds in one.stages.items():
            of_stage = stages.setdefault(stage, {})
            for name, value in seconds.items():
                of_stage[name] = of_stage.get(name, 0.0) + value
    return TimeSpent({name: sum(one.parts.get(name, 0.0) for one in counted) for name in counted[0].parts}, stages)


def _once(lists: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(text for one in lists for text in one))
