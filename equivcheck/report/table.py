"""The closing table and the verdict of a run, as pure functions of its report; plain lines without a terminal."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from equivcheck.report.clean_text import clean, one_line
from equivcheck.report.closing_lines import (
    counted_checks,
    coverage_lines,
    domain_lines,
    evidence_line,
    levels_line,
    now,
    remembered_lines,
    sensitivity_line,
    shortened_lines,
    title,
    verdict_line,
)
from equivcheck.report.model import CheckResult, Report
from equivcheck.report.summary import summary_lines

if TYPE_CHECKING:  # a slow import
    from rich.console import Console

# with `clean`, `evidence_line` and `verdict_line`: the command line imports all that it prints from here
__all__ = [
    "HEADINGS",
    "clean",
    "console",
    "evidence_line",
    "plain",
    "remarks",
    "replayed",
    "rows",
    "sections",
    "show",
    "verdict_line",
]

HEADINGS = ("check", "outcome", "cases", "worst ratio", "where")
_RIGHT = (False, False, True, True, False)  # numbers stand under each other by their last digit
_STYLES = {"equivalent": "green", "different": "bold red", "insensitive": "bold red"}
_OTHER_STYLE = "yellow"  # unsupported, deviation, partial: not a failure, and worth a look


def rows(report: Report) -> list[tuple[str, ...]]:
    """One row of cells per check, under `HEADINGS`: no cell has a line break in it."""
    return [
        (
            one_line(result.name),
            result.outcome,
            str(result.cases),
            "-" if result.worst_ratio is None else f"{result.worst_ratio:.3g}",
            one_line(_where(result)),
        )
        for result in report.results
    ]


def sections(report: Report) -> list[tuple[str, list[str]]]:
    """The text under the table, as headings with lines: counterexamples, `remarks`, and the limits of the evidence."""
    counterexamples = [line for result in report.shown if not result.shortened for line in _counterexample(result)]
    bodies = [("counterexamples", counterexamples)]
    for heading, items in remarks(report):
        bodies.append((heading, [one_line(f"{name}: {remark}") for name, remark in items]))
    bodies.append(("not covered by the evidence", [one_line(what) for what in report.not_covered]))
    return [(heading, lines) for heading, lines in bodies if lines]


def remarks(report: Report) -> list[tuple[str, list[tuple[str, str]]]]:
    """The remarks under their headings, by check.

    They are findings, remembered counterexamples, also different, deviations, notes, unsupported.
    """
    deviations: list[tuple[str, str]] = []
    notes: list[tuple[str, str]] = []
    unsupported: list[tuple[str, str]] = []
    for result in report.results:
        if result.detail:
            (deviations if result.outcome == "deviation" else notes).append((result.name, result.detail))
        notes += [(result.name, note) for note in result.notes]
        unsupported += [(result.name, what) for what in result.unsupported]
    findings = [("the run", finding) for finding in report.findings]
    again = [
        (result.name_of(finding), f"{finding.counterexample.case}, not made small")
        for result in report.results
        if result.shortened
        for finding in result.shown
        if finding.outcome == "different"
    ]
    remembered = [(result.name, f"{result.worst_case} {now(result)}") for result in report.remembered or ()]
    by_heading = [
        ("findings", findings),
        ("remembered counterexamples", remembered),
        ("also different", again),
        ("deviations", deviations),
        ("notes", notes),
        ("unsupported", unsupported),
    ]
    return [(heading, items) for heading, items in by_heading if items]


def plain(report: Report) -> str:
    """The whole closing text in aligned lines, with the verdict as the last one."""
    table = [HEADINGS, *rows(report)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADINGS))]
    lines = [title(report), *summary_lines(report), ""]
    for row in table:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, _RIGHT, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    for heading, body in sections(report):
        lines += ["", f"{heading}:", *(f"  {line}".rstrip() for line in body)]
    lines += ["", *_facts(report), verdict_line(report)]
    return "\n".join(lines) + "\n"


def replayed(case: str, results: Sequence[CheckResult]) -> tuple[str, str]:
    """The verdict on one case (`equivalent`, `different`, `unsupported` or `not judged`), and the results of its checks as text."""
    lines: list[str] = []
    for result in results:
        ratio = "" if result.worst_ratio is None else f", ratio {result.worst_ratio:.3g}"
        lines.append(one_line(f"{result.name}: {result.outcome}{ratio}"))
        message = result.detail or (result.counterexample.message if result.counterexample else "")
        lines += [f"  {clean(line)}".rstrip() for line in message.splitlines()]
        lines += ["  " + one_line(f"unsupported: {what}") for what in result.unsupported]
        lines += ["  " + one_line(f"note: {note}") for note in result.notes]
    different = [result.name for result in results if result.outcome == "different"]
    if different:
        word, what = "different", f"{', '.join(different)}, of {counted_checks(results)}"
    elif any(result.outcome in ("equivalent", "deviation") for result in results):
        word, what = "equivalent", counted_checks(results)
    elif any(result.outcome in ("not judged", "not applicable") for result in results):
        word, what = "not judged", f"nothing was compared by {counted_checks(results)}"
    else:
        word, what = "unsupported", f"nothing could be judged by {counted_checks(results)}"
    return word, "\n".join([*lines, "", one_line(f"{word}: {what}, on {case}")]) + "\n"


def console(terminal: TextIO) -> "Console":
    """A console of rich on `terminal`, with its width; by itself rich asks the process's streams for a width."""
    from rich.console import Console

    with suppress(OSError, ValueError):
        width, height = os.get_terminal_size(terminal.fileno())
        if width and height:
            return Console(file=terminal, highlight=False, width=width, height=height)
    return Console(file=terminal, highlight=False)


def show(report: Report, file: TextIO | None = None) -> None:
    """Print the closing text to `file` (standard output by default): with rich on a terminal, else as `plain`."""
    file = sys.stdout if file is None else file
    if not file.isatty():
        file.write(plain(report))
        file.flush()
        return
    from rich.box import SIMPLE_HEAD
    from rich.table import Table
    from rich.text import Text

    screen = console(file)
    table = Table(title=Text(title(report)), title_justify="left", title_style="", box=SIMPLE_HEAD, pad_edge=False)
    for heading, right in zip(HEADINGS, _RIGHT, strict=True):
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for name, outcome, *numbers in rows(report):
        # Text, not str: square brackets in a name are no markup
        table.add_row(Text(name), Text(outcome, _style(outcome)), *map(Text, numbers))
    if summary := summary_lines(report):
        screen.print(Text(title(report)))
        screen.print(Text("\n".join(summary), "bold"), soft_wrap=True)
        table.title = None
    screen.print(table)
    for heading, body in sections(report):
        screen.print(Text(f"\n{heading}:", "bold"))
        for line in body:
            screen.print(Text(f"  {line}"), soft_wrap=True)  # so that a replay command can be copied
    screen.print(Text("\n" + "\n".join(_facts(report))), soft_wrap=True)
    screen.print(Text(verdict_line(report), _style(report.verdict)), soft_wrap=True)


def _facts(report: Report) -> list[str]:
    """The lines above the verdict."""
    return [
        *domain_lines(report),
        *shortened_lines(report),
        *remembered_lines(report),
        *coverage_lines(report),
        levels_line(report),
        sensitivity_line(report),
    ]


def _counterexample(result: CheckResult) -> Iterator[str]:
    for finding in result.shown:
        example = finding.counterexample
        ratio = "" if example.ratio is None else f" (ratio {example.ratio:.3g})"
        level = f" [{finding.level}]" if finding.level else ""
        yield one_line(f"{result.name_of(finding)}{level}: {example.case}{ratio}")
        for line in example.message.splitlines():
            yield f"  {clean(line)}"
        yield f"  replay: {one_line(example.replay)}"


def _where(result: CheckResult) -> str:
    return " of ".join(part for part in (result.worst_where, result.worst_case) if part) or "-"


def _style(word: str) -> str:
    return _STYLES.get(word, _OTHER_STYLE)
