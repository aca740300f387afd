"""The candidates of one original as a table: the equivalent ones by rank, then the others with their first finding."""

from collections.abc import Sequence

from equivcheck.report.clean_text import one_line
from equivcheck.report.judged import Judged, ranked

__all__ = ["line", "plain"]

_HEADINGS = ("rank", "candidate", "verdict", "speed-up", "95 %", "ms")
_MOST_LETTERS = 200  # of a finding


def plain(original: str, judged: Sequence[Judged], feedback: str, *, complete: bool = True) -> str:
    """The table, a line for each finding under it, and a closing line."""
    places = ranked(judged)
    rows = [_HEADINGS, *(_row(rank, one) for rank, one in places)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    lines = [one_line(f"{len(judged)} candidate{'' if len(judged) == 1 else 's'} for {original}"), ""]
    lines += ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    remarks = [text for _, one in places if (text := _remark(one, feedback))]
    lines += ["", *remarks] if remarks else []
    return "\n".join([*lines, "", _closing(judged) + ("" if complete else "; interrupted before the rest")]) + "\n"


def line(one: Judged, number: int, feedback: str) -> str:
    """One candidate in one line, for those who wait."""
    parts = [one.verdict]
    if one.timed is not None and one.status == 0:
        parts.append(f"{one.timed.speed_up:.3g} times as fast as the original")
    if feedback == "full" and one.status and one.first_finding:
        parts.append(one.first_finding[:_MOST_LETTERS])
    return one_line(f"candidate {number}, {_name(one)}: {', '.join(parts)} ({one.seconds:.1f} s)")


def _name(one: Judged) -> str:
    return one_line(one.candidate or one.given)


def _row(rank: int | None, one: Judged) -> tuple[str, ...]:
    times = ("", "", "")
    if one.timed is not None and one.status == 0:
        t = one.timed
        times = (f"{t.speed_up:.3g}", f"{t.low:.3g} to {t.high:.3g}", f"{t.candidate_ms:.4g}")
    return ("" if rank is None else str(rank), _name(one), one.verdict, *times)


def _remark(one: Judged, feedback: str) -> str:
    """The first finding of a candidate, its differing levels, or why it has no time."""
    if one.status == 0:
        return one_line(f"{_name(one)}: not timed: {one.untimed}") if one.untimed else ""
    if (facts := one.facts) is None:
        known = one.problem.startswith(one.given)
        return one_line(one.problem if known else f"{_name(one)}: {one.problem}")
    if feedback == "none":
        return ""
    if feedback == "full":
        return one_line(f"{_name(one)}: {one.first_finding[:_MOST_LETTERS]}") if one.first_finding else ""
    at = [level for level, outcome in facts["levels"].items() if outcome == "different"]
    return one_line(f"{_name(one)}: {one.verdict}{' at ' + ', '.join(at) if at else ''}: {', '.join(one.differing)}")


def _closing(judged: Sequence[Judged]) -> str:
    words = ("equivalent", "different or insensitive", "not judged")
    counts = [sum(one.status == status for one in judged) for status in range(3)]
    return ", ".join(f"{count} {word}" for count, word in zip(counts, words, strict=True))
