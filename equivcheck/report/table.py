"""The closing table and the verdict of a run, as pure functions of its report; plain lines where no terminal is."""

import os
import re
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TextIO

from equivcheck.report.model import CheckResult, Report

if TYPE_CHECKING:  # it takes its time to import
    from rich.console import Console

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
    "sensitivity_line",
    "show",
    "title",
    "verdict_line",
]

HEADINGS = ("check", "outcome", "cases", "worst ratio", "where")
_RIGHT = (False, False, True, True, False)  # numbers stand under each other by their last digit
_STYLES = {"equivalent": "green", "different": "bold red", "insensitive": "bold red"}
_OTHER_STYLE = "yellow"  # unsupported, deviation, partial: true, and worth a look
_COMMAND = re.compile(r"(?m)^(\s*)(:)(?=:)|()(#)(?=#\[)")
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def clean(text: str) -> str:
    """`text` with every character that could drive a terminal, or that XML cannot hold, spelled out as an escape.

    So is the beginning of a command to GitHub's runner: `::` at the beginning of a line, and `##[` anywhere.
    """
    text = _COMMAND.sub(lambda match: f"{match[1] or ''}\\x{ord(match[2] or match[4]):02x}", text)
    return "".join(character if _harmless(character) else _escape(character) for character in text)


def title(report: Report) -> str:
    """What was held against what, and how, in one line."""
    pair = f"{report.candidate} against {report.reference}"
    return _one_line(f"{pair} ({report.kind}, profile {report.profile}, seed {report.seed})")


def rows(report: Report) -> list[tuple[str, ...]]:
    """One row of cells per check, under `HEADINGS`: no cell has a line break in it."""
    return [
        (
            _one_line(result.name),
            result.outcome,
            str(result.cases),
            "-" if result.worst_ratio is None else f"{result.worst_ratio:.3g}",
            _one_line(_where(result)),
        )
        for result in report.results
    ]


def sections(report: Report) -> list[tuple[str, list[str]]]:
    """What does not fit into the table, as headings with lines: the counterexamples, the `remarks` and what is not covered."""
    counterexamples = [line for result in report.results for line in _counterexample(result)]
    found = [("counterexamples", counterexamples)]
    for heading, told in remarks(report):
        found.append((heading, [_one_line(f"{name}: {remark}") for name, remark in told]))
    found.append(("not covered by the evidence", [_one_line(what) for what in report.not_covered]))
    return [(heading, lines) for heading, lines in found if lines]


def remarks(report: Report) -> list[tuple[str, list[tuple[str, str]]]]:
    """What was remarked: headings (findings, deviations, notes, unsupported) with pairs of a check and its remark."""
    deviations: list[tuple[str, str]] = []
    notes: list[tuple[str, str]] = []
    unsupported: list[tuple[str, str]] = []
    for result in report.results:
        if result.detail:
            (deviations if result.outcome == "deviation" else notes).append((result.name, result.detail))
        notes += [(result.name, note) for note in result.notes]
        unsupported += [(result.name, what) for what in result.unsupported]
    findings = [("the run", finding) for finding in report.findings]
    found = [("findings", findings), ("deviations", deviations), ("notes", notes), ("unsupported", unsupported)]
    return [(heading, told) for heading, told in found if told]


def sensitivity_line(report: Report) -> str:
    """How many faults were planted and caught, with the survivors by name, and what was not planted."""
    of = report.sensitivity
    parts = [
        f"{_count(len(of.planted), 'fault')} planted, {of.caught} caught" if of.planted else "no fault was planted"
    ]
    if of.survived:
        parts.append(f"survived: {', '.join(of.survived)}")
    if of.without_effect:
        parts.append(f"{len(of.without_effect)} left out, as nothing of them would show here")
    if of.untried:
        parts.append(f"out of time before {len(of.untried)} more")
    return _one_line(f"sensitivity: {'; '.join(parts)}")


def verdict_line(report: Report) -> str:
    """The verdict in one line that begins with its word, and says of how much it is the verdict."""
    facts = [_count(report.cases, "case"), _checks(report.results), _device(report)]
    planted, survived = report.sensitivity.planted, report.sensitivity.survived
    match report.verdict:
        case "different":
            names = [result.name for result in report.results if result.outcome == "different"]
            facts.insert(0, ", ".join([*names, *report.findings]))
            if not report.complete:
                facts.append("partial: the run was cut short")
        case "unsupported":
            refused = [r.name for r in report.results if r.unsupported or r.outcome == "unsupported"]
            facts.insert(0, f"{', '.join(refused)}, and the run is strict")
        case "insensitive" if survived:
            of_all = f"{len(survived)} of {_count(len(planted), 'planted fault')}"
            facts.insert(0, f"{of_all} survived ({', '.join(survived)})")
        case "insensitive":
            facts.insert(0, "no fault was planted")
        case "partial":
            facts.insert(0, "the run was cut short and proves nothing")
        case _:
            facts.append(f"{report.sensitivity.caught} of {_count(len(planted), 'planted fault')} caught")
    if report.options_not_judged:
        facts.append(f"not judged, as the original alone takes them: {', '.join(report.options_not_judged)}")
    if not report.sealed:
        facts.append("unsealed")
    facts.append(f"{report.seconds:.1f} s")
    return _one_line(f"{report.verdict}: {', '.join(facts)}")


def evidence_line(report: Report) -> str:
    """What the verdict rests on, in one line: profile, dtypes, cases, torch, and how many files and packages are covered."""
    files = {name for part, names in report.files.items() if part != "equivcheck" for name in names}
    facts = [f"profile {report.profile}"]
    facts += [f"dtypes {' '.join(report.dtypes)}"] if report.dtypes else []
    facts += [_count(report.cases, "case"), f"torch {report.environment.get('torch', 'not recorded')}"]
    facts.append(f"{_count(len(files), 'file')} and {_count(len(report.packages), 'package')} of the pair")
    return _one_line(f"evidence: {', '.join(facts)}")


def plain(report: Report) -> str:
    """The whole closing text in aligned lines, the verdict last."""
    table = [HEADINGS, *rows(report)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADINGS))]
    lines = [title(report), ""]
    for row in table:
        cells = [
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, _RIGHT, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    for heading, body in sections(report):
        lines += ["", f"{heading}:", *(f"  {line}".rstrip() for line in body)]
    lines += ["", sensitivity_line(report), verdict_line(report)]
    return "\n".join(lines) + "\n"


def replayed(case: str, results: Sequence[CheckResult]) -> tuple[str, str]:
    """The verdict on one case (`equivalent`, `different` or `unsupported`), and all that the checks say about it."""
    lines: list[str] = []
    for result in results:
        ratio = "" if result.worst_ratio is None else f", ratio {result.worst_ratio:.3g}"
        lines.append(_one_line(f"{result.name}: {result.outcome}{ratio}"))
        message = result.detail or (result.counterexample.message if result.counterexample else "")
        lines += [f"  {clean(line)}".rstrip() for line in message.splitlines()]
        lines += ["  " + _one_line(f"unsupported: {what}") for what in result.unsupported]
        lines += ["  " + _one_line(f"note: {note}") for note in result.notes]
    different = [result.name for result in results if result.outcome == "different"]
    if different:
        word, what = "different", f"{', '.join(different)}, of {_checks(results)}"
    elif any(result.outcome != "unsupported" for result in results):
        word, what = "equivalent", _checks(results)
    else:
        word, what = "unsupported", f"nothing could be judged by {_checks(results)}"
    return word, "\n".join([*lines, "", _one_line(f"{word}: {what}, on {case}")]) + "\n"


def console(terminal: TextIO) -> "Console":
    """A console of rich on `terminal`, as wide as that is: rich asks the process's streams, which may be somebody else's."""
    from rich.console import Console

    with suppress(OSError, ValueError):
        width, height = os.get_terminal_size(terminal.fileno())
        if width and height:
            return Console(file=terminal, highlight=False, width=width, height=height)
    return Console(file=terminal, highlight=False)


def show(report: Report, file: TextIO | None = None) -> None:
    """Print the closing text to `file` (standard output): with rich on a terminal, as `plain` elsewhere."""
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
        # Text, not str: a name with square brackets in it is no markup
        table.add_row(Text(name), Text(outcome, _style(outcome)), *map(Text, numbers))
    screen.print(table)
    for heading, body in sections(report):
        screen.print(Text(f"\n{heading}:", "bold"))
        for line in body:
            screen.print(Text(f"  {line}"), soft_wrap=True)  # a replay command must survive being copied
    screen.print(Text(f"\n{sensitivity_line(report)}"), soft_wrap=True)
    screen.print(Text(verdict_line(report), _style(report.verdict)), soft_wrap=True)


def _counterexample(result: CheckResult) -> Iterator[str]:
    found = result.counterexample
    if found is None:
        return
    ratio = "" if found.ratio is None else f" (ratio {found.ratio:.3g})"
    yield _one_line(f"{result.name}: {found.case}{ratio}")
    for line in found.message.splitlines():
        yield f"  {clean(line)}"
    yield f"  replay: {_one_line(found.replay)}"


def _where(result: CheckResult) -> str:
    return " of ".join(part for part in (result.worst_where, result.worst_case) if part) or "-"


def _checks(results: Sequence[CheckResult]) -> str:
    apart = []
    for outcome in ("deviation", "unsupported"):
        if count := sum(result.outcome == outcome for result in results):
            apart.append(f"{count} {outcome}")
    return _count(len(results), "check") + (f" ({', '.join(apart)})" if apart else "")


def _device(report: Report) -> str:
    device, _, rest = report.device.partition(" (")  # a GPU's name stands in brackets behind it
    known = [rest.removesuffix(")")] if rest else []
    if torch := report.environment.get("torch"):
        known.append(f"torch {torch}")
    return device + (f" ({', '.join(known)})" if known else "")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _style(word: str) -> str:
    return _STYLES.get(word, _OTHER_STYLE)


def _one_line(text: str) -> str:
    return clean(" ".join(text.split()))


def _harmless(character: str) -> bool:
    if character in "\n\t":
        return True
    return unicodedata.category(character) not in ("Cc", "Cs", "Cn") and character not in _BIDI


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
