"""Why a run ends with its exit status: a short id for programs, the status, and the reason in words."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the model derives from here
    from equivcheck.report.model import Report

__all__ = ["EXITS", "exit_reason", "exit_status"]

EXITS: Mapping[str, tuple[int, str]] = {
    "equivalent": (0, "every required level is equivalent, and every planted fault of these levels was seen"),
    "shard": (0, "a part of the cases shows no difference, which says nothing of the others: merge the reports"),
    "different": (
        1,
        "a check differs at a required level, a required kernel did not run, or a limit of memory was passed",
    ),
    "void": (1, "the comparison is void: the original, torch or what judges was replaced, or the process was changed"),
    "fault-survived": (1, "no check saw a planted fault of a required level"),
    "no-fault-planted": (1, "no fault could be planted, so nothing shows that the run would have seen one"),
    "refused": (1, "the candidate refuses a transform or a dtype, and the run is strict"),
    "cut-short": (2, "time ran out, the run was interrupted, or cases were lost with a process"),
    "nothing-compared": (2, "nothing was compared at a required level"),
    "not-refuted": (2, "a screen saw no difference, which proves nothing"),
    "unusable": (2, "nothing could be judged: an option, an import or the original is at fault, as the message says"),
    "unwritable": (2, "a file of the report could not be written"),
    "internal": (2, "equivcheck itself failed: nothing is said of the pair"),
    "interrupted": (2, "the command was interrupted before there was anything to report"),
}
"""Id -> the exit status, and the reason in words. An id keeps its meaning from version to version."""

_BY_VERDICT = {
    "different": "different",
    "unsupported": "refused",
    "partial": "cut-short",
    "not judged": "nothing-compared",
    "not refuted": "not-refuted",
    "equivalent": "equivalent",
}


def exit_reason(report: "Report") -> str:
    """The id of the reason why `verify` ends as it does with this report."""
    verdict = report.verdict
    if verdict == "insensitive":
        return "fault-survived" if report.survived else "no-fault-planted"
    if verdict == "different" and report.findings and "different" not in report.levels.values():
        return "void"
    if report.shard is not None and verdict == report.shard.name:
        return "shard"
    return _BY_VERDICT.get(verdict, "cut-short")


def exit_status(report: "Report") -> int:
    """The exit status of `verify` with this report."""
    return EXITS[exit_reason(report)][0]
