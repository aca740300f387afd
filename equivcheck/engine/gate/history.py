"""The points in which a report has fallen behind an older one of the same pair and device."""

from collections.abc import Iterator, Mapping

from equivcheck.engine.gate.sources import AGAIN
from equivcheck.errors import UsageError
from equivcheck.report.model import Report

__all__ = ["fallen_behind"]

_GROWTH = 1.5  # a ratio that grew by more than half is worth a look, long before it reaches 1
_FROM_BEST = ("equivalent", "deviation", "not applicable", "unsupported", "not judged", "different")


def fallen_behind(reports: Mapping[str, Report], old_name: str, old: Report) -> Iterator[str]:
    """Each point in which a report is behind `old`.

    Args:
        reports: Name of a file -> the report in it.
        old_name: The name of the file of the older report.
        old: The older report.

    Raises:
        UsageError: No report is of the pair and device of `old`.
    """
    fitting = [(name, report) for name, report in reports.items() if _place(report) == _place(old)]
    if not fitting:
        raise UsageError(
            f"--against {old_name}: it is of {old.candidate} on {old.device}, and no other file is; "
            "give one of the same two"
        )
    for name, report in fitting:
        for reason in _behind(report, old):
            yield f"{name}: {reason}"


def _behind(new: Report, old: Report) -> Iterator[str]:
    results = {result.name: result for result in new.results}
    for before in old.results:
        after = results.get(before.name)
        if after is None:
            yield f"check {before.name} was {before.outcome} and is gone; {AGAIN} with it"
            continue
        if _FROM_BEST.index(after.outcome) > _FROM_BEST.index(before.outcome):
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


def _place(report: Report) -> tuple[str, ...]:
    return (report.reference, report.candidate, report.kind, report.device)
