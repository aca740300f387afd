"""The content of the HTML page, as plain data made from a report: no markup, no colours, every text cleaned."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from equivcheck.report import time_table
from equivcheck.report.clean_text import clean
from equivcheck.report.closing_lines import sensitivity_line, title, verdict_line
from equivcheck.report.coverage import counts_by_check
from equivcheck.report.model import CheckResult, Finding, Report, Timing
from equivcheck.report.summary import summary_lines
from equivcheck.report.table import remarks, rows
from equivcheck.report.time_spent import TimeSpent

__all__ = ["Cell", "Grid", "heat", "pairs", "sentence", "view", "visited"]

_STEPS = (0.1, 0.25, 0.5, 1.0)  # edges of the classes of the heat map: what lies above the last one fails
_AXES = ("dtype", "regime")
"""The pair of dimensions that is shown as a grid; of the other pairs only the number of visited ones is shown."""

_MOST_NAMED = 8  # in a sentence that can still be read


@dataclass(frozen=True)
class Cell:
    """A ratio or a count as text, and its class in the heat map; None if nothing was measured."""

    text: str
    level: int | None


@dataclass(frozen=True)
class Grid:
    """A table with a heading for each row and column."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str, tuple[Cell, ...]], ...]


def sentence(report: Report) -> str:
    """The verdict in one sentence of plain English."""
    candidate, reference = _short(report.candidate), _short(report.reference)
    different = [name for result in report.shown for name in result.differing]
    reached = [level for level in report.required if report.levels[level] != "not applicable"]
    at = "" if set(reached) >= {r for result in report.shown for r in result.levels} else f" at {_listed(reached)}"
    declared = sum(result.outcome == "deviation" for result in report.results)
    planted, survived = len(report.sensitivity.planted), len(report.sensitivity.survived)
    cut = "" if report.complete else " The run was cut short."
    match report.verdict:
        case "equivalent":
            apart = f", apart from {_count(declared, 'declared deviation')}" if declared else ""
            text = (
                f"{candidate} is the same attention as {reference}{at}{apart}: "
                f"in {_count(report.cases, 'case')} nothing differs by more than rounding explains, "
                f"and all {_count(planted, 'planted fault')} were noticed."
            )
        case "different":
            text = f"{candidate} is not the same attention as {reference}: it differs in {_listed(different)}.{cut}"
        case "insensitive":
            proof = (
                f"{survived} of {_count(planted, 'planted fault')} went unnoticed"
                if planted
                else "no fault was planted"
            )
            text = f"No difference was seen between {candidate} and {reference}, which proves nothing: {proof}."
        case "not judged":
            text = f"Of {candidate} against {reference} a required level was not judged, which proves nothing."
        case "not refuted":
            text = f"A screen of {candidate} against {reference} has shown no difference, which proves nothing."
        case "partial":
            text = f"The run of {candidate} against {reference} was cut short and proves nothing."
        case _ if report.shard is not None:
            text = (
                f"Part {report.shard.number} of {report.shard.of} of a run of {candidate} against {reference} has shown no "
                "difference, which proves nothing."
            )
        case verdict:
            text = f"{candidate} against {reference}: {verdict}."
    return clean(" ".join(text.split()))


def _listed(names: Sequence[str]) -> str:
    """The first names, and the number of the others: the table has them all."""
    more = len(names) - _MOST_NAMED
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:_MOST_NAMED])} and {more} more checks"


def heat(report: Report) -> Grid:
    """Worst ratio over check × dtype, for the checks that measure one."""
    dtypes = _sorted({dtype for result in report.results for dtype in result.by_dtype})
    return Grid(
        tuple(map(clean, dtypes)),
        tuple(
            (clean(result.name), tuple(_ratio(result.by_dtype.get(dtype)) for dtype in dtypes))
            for result in report.results
            if result.by_dtype
        ),
    )


def visited(report: Report) -> dict[str, list[tuple[str, int]]]:
    """The values of each dimension, each value with the number of cases of all checks together."""
    return {
        clean(dimension): [(clean(value), counts[value]) for value in _sorted(counts)]
        for dimension, counts in _together(report).items()
        if " × " not in dimension
    }


def pairs(report: Report) -> tuple[Grid, list[tuple[str, int, int]]]:
    """Coverage of pairs of dimensions.

    Returns:
        The numbers of cases by regime (rows) and dtype (columns); and for each pair of dimensions its name, how many
        pairs of visited values met in a case, and how many pairs of visited values there are.
    """
    together = _together(report)
    met = []
    for dimension, counts in together.items():
        a, times, b = dimension.partition(" × ")
        if times and a in together and b in together:
            met.append((clean(dimension), len(counts), len(together[a]) * len(together[b])))
    name = " × ".join(_AXES)
    if name not in together:
        return Grid((), ()), met
    first, second = (_sorted(together[axis]) for axis in _AXES)
    counts = together[name]
    cells = {(a, b): counts.get(f"{a} × {b}", 0) for a, b in product(first, second)}
    grid = [(clean(b), tuple(Cell(str(cells[a, b]), 0 if cells[a, b] else None) for a in first)) for b in second]
    return Grid(tuple(map(clean, first)), tuple(grid)), met


def view(report: Report, performance: Mapping[str, Timing]) -> dict[str, object]:
    """Everything that the template shows, by name, except the plots."""
    grid, met = pairs(report)
    return {
        "verdict": report.verdict,
        "sentence": sentence(report),
        "summary": clean("\n".join(summary_lines(report))),
        "line": verdict_line(report),
        "title": title(report),
        "facts": _facts(report),
        "checks": rows(report),
        "heat": heat(report),
        "visited": visited(report),
        "grid": grid,
        "pairs": met,
        "combinations": [tuple(map(clean, row)) for row in counts_by_check(report)],
        "levels": [
            (level, outcome, "yes" if level in report.required else "no") for level, outcome in report.levels.items()
        ],
        "counterexamples": [
            (clean(_titled(r, finding)), clean(c.case), clean(c.message), clean(c.replay), _ratio(c.ratio).text)
            for r in report.shown
            if not r.shortened
            for finding in r.shown
            if (c := finding.counterexample)
        ],
        "remarks": [(heading, [(clean(a), clean(b)) for a, b in items]) for heading, items in remarks(report)],
        "deviations": [
            tuple(map(clean, (d.name, d.reason, d.expires or "never", "yes" if d.observed else "no")))
            for d in report.deviations
        ],
        "sensitivity": sensitivity_line(report).partition(": ")[2],
        "survived": [clean(name) for name in report.sensitivity.survived],
        "caught": [(clean(name), clean(by)) for name, by in report.sensitivity.caught_by.items()],
        "kernels": _cleaned(report.kernels),
        "performance": [_timing(name, timing) for name, timing in performance.items()],
        "time_spent": [] if report.time_spent is None else _time(report.time_spent),
        "environment": _cleaned(report.environment),
        "packages": [(clean(name), clean(package.version)) for name, package in sorted(report.packages.items())],
        "not_covered": [clean(what) for what in report.not_covered],
        "sources": _cleaned(report.sources),
    }


def _titled(result: CheckResult, finding: Finding) -> str:
    return result.name_of(finding) + (f" ({finding.level})" if finding.level else "")


def _facts(report: Report) -> list[tuple[str, str]]:
    where = ""
    if report.candidate_file:
        where = f" ({report.candidate_file}:{report.candidate_line})"
    facts = {
        "reference": report.reference,
        "candidate": report.candidate + where,
        "kind": report.kind,
        "device": report.device,
        "profile": report.profile,
        **({"dtypes": _dtypes(report)} if report.dtypes else {}),
        "seed": str(report.seed),
        "finished" if report.complete else "cut short": report.created,
        "complete": "yes" if report.complete else "no: partial",
    }
    return [(name, clean(value)) for name, value in facts.items()]


def _dtypes(report: Report) -> str:
    not_run = [f"not {dtype}: {why}" for dtype, why in report.dtypes_not_run.items()]
    return "; ".join([", ".join(report.dtypes), *not_run])


def _timing(name: str, timing: Timing) -> tuple[str, ...]:
    interval = ""
    if timing.speed_up_low is not None and timing.speed_up_high is not None:
        interval = f" ({timing.speed_up_low:.2f} to {timing.speed_up_high:.2f})"
    return (
        clean(name),
        _ms(timing.reference_ms),
        _ms(timing.candidate_ms),
        "-" if timing.speed_up is None else f"{timing.speed_up:.2f} ×{interval}",
        _mib(timing.reference_bytes),
        _mib(timing.candidate_bytes),
        clean(timing.remark),
    )


def _time(spent: TimeSpent) -> list[tuple[str, str]]:
    """The rows of its table, and after them the longest stages."""
    rows = [(part, f"{seconds} s ({share})") for part, share, seconds in time_table.rows(spent)]
    return [*rows, *((stage, f"{seconds:.1f} s") for stage, seconds in time_table.by_stage(spent))]


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f} ms" if value >= 1000 else f"{value:.3g} ms"


def _mib(value: int | None) -> str:
    return "-" if value is None else f"{value / 2**20:,.0f} MiB"


def _ratio(ratio: float | None) -> Cell:
    if ratio is None:
        return Cell("-", None)
    above = sum(ratio > edge for edge in _STEPS) if not math.isnan(ratio) else len(_STEPS)
    return Cell(f"{ratio:.3g}", above)


def _together(report: Report) -> dict[str, Counter[str]]:
    together: dict[str, Counter[str]] = {}
    for result in report.results:
        for dimension, counts in result.visited.items():
            together.setdefault(dimension, Counter()).update(counts)
    return together


def _sorted(values: Iterable[str]) -> list[str]:
    """The values by name, with numbers in names by size, and `longer` after every length."""

    def parts(value: str) -> list[int | str]:
        # words and numbers alternate; a digit that \d does not match, such as a superscript, is part of a word
        return [int(part) if at % 2 else part for at, part in enumerate(re.split(r"(\d+)", value))]

    return sorted(values, key=lambda v: (v == "longer", parts(v)))


def _cleaned(values: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(clean(name), clean(value)) for name, value in sorted(values.items())]


def _short(name: str) -> str:
    return name.rpartition(":")[2] or name


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
