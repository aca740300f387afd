"""Whether reports are those of the shards of one run: of the same pair, seed, sources and plan."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from equivcheck.errors import UsageError
from equivcheck.report.model import Report
from equivcheck.report.shard import Shard

__all__ = ["refuse_other_runs", "shard_of"]

_ASKED: dict[str, Callable[[Report], Any]] = {
    "number of shards": lambda report: shard_of(report).of,
    "reference": lambda report: report.reference,
    "candidate": lambda report: report.candidate,
    "profile": lambda report: report.profile,
    "seed": lambda report: report.seed,
}
_OF_A_PLAN: dict[str, Callable[[Report], Any]] = {
    "kind": lambda report: report.kind,
    "device": lambda report: report.device,
    "torch": lambda report: report.environment.get("torch"),
    "strictness": lambda report: report.strict,
    "required levels": lambda report: ", ".join(report.require) or "those of the kind",
    "domain": lambda report: report.domain or "every case",
    "dtypes": lambda report: " ".join(report.dtypes),
    "deviation": lambda report: ", ".join(f"{d.name} ({d.reason}, {d.expires})" for d in report.deviations) or "none",
}


def shard_of(report: Report) -> Shard:
    """The record of a shard in a report of which it is known that it has one."""
    assert report.shard is not None, "the report is of a shard"
    return report.shard


def refuse_other_runs(reports: Sequence[tuple[str, Report]]) -> None:
    """Make sure that these are reports of shards of one run.

    Args:
        reports: The name of each file, and the report in it.

    Raises:
        UsageError: One of them is no report of a shard, or two are of different runs.
    """
    for name, report in reports:
        if report.shard is None:
            raise UsageError(
                f"{name}: not of a shard, its verdict is {report.verdict}; verify --shard I/N writes such a report"
            )
    _compare(reports, _ASKED)
    planned = [(name, report) for name, report in reports if shard_of(report).plan_sha256]
    _compare(planned, _OF_A_PLAN)
    for first, second, what in _changed(planned):
        raise UsageError(f"{first} and {second} are of different sources: {what} differs; run all shards again")
    _compare(planned, {"plan": lambda report: shard_of(report).plan_sha256[:12]})


def _compare(reports: Sequence[tuple[str, Report]], facts: Mapping[str, Callable[[Report], Any]]) -> None:
    for what, fact in facts.items():
        for (one, first), (other, second) in pairwise(reports):
            if fact(first) != fact(second):
                raise UsageError(
                    f"{one} and {other} are no shards of one run: the {what} is {fact(first)} and {fact(second)}; "
                    "run all shards with the same options"
                )


def _changed(reports: Sequence[tuple[str, Report]]) -> Iterator[tuple[str, str, str]]:
    """Two files, and the source file or package whose content differs between their runs."""
    known: dict[tuple[str, str], tuple[str, Any]] = {}
    for name, report in reports:
        content = {(part, file): sha for part, hashes in report.files.items() for file, sha in hashes.items()}
        content |= {("package", package): of for package, of in report.packages.items()}  # type: ignore[misc]
        for key, value in content.items():
            other, earlier = known.setdefault(key, (name, value))
            if earlier != value:
                yield other, name, key[1]
