"""The time that a run spent as text: a short table by part of the judging, and the longest checks."""

from equivcheck.report.clean_text import one_line
from equivcheck.report.time_spent import TimeSpent
from equivcheck.runtime.clock import PARTS

__all__ = ["by_stage", "lines", "longest", "rows"]

_HEADINGS = ("time spent, all processes", "share", "seconds")
_MOST_STAGES = 5  # that are named in a line


def rows(spent: TimeSpent) -> list[tuple[str, str, str]]:
    """Part, share and seconds as text, in the order of `PARTS`; the last row is the whole."""
    total = spent.total_s
    known = [*((part, spent.parts[part]) for part in PARTS if part in spent.parts), ("all", total)]
    return [(part, f"{100 * s / total:.0f} %" if total > 0 else "-", f"{s:.1f}") for part, s in known]


def by_stage(spent: TimeSpent) -> list[tuple[str, float]]:
    """The stages with their seconds, the longest first."""
    sums = {one_line(stage): sum(parts.values()) for stage, parts in spent.stages.items()}
    return sorted(sums.items(), key=lambda item: (-item[1], item[0]))


def lines(spent: TimeSpent) -> list[str]:
    """A short table in aligned lines, and a line that names the longest stages."""
    table = [_HEADINGS, *rows(spent)]
    part, share, seconds = (max(len(row[column]) for row in table) for column in range(3))
    aligned = [f"{a.ljust(part)}  {b.rjust(share)}  {c.rjust(seconds)}" for a, b, c in table]
    return [*aligned, *([longest(spent)] if spent.stages else [])]


def longest(spent: TimeSpent) -> str:
    """The longest stages in one line."""
    return "longest: " + ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in by_stage(spent)[:_MOST_STAGES])
