"""A report as GitHub-flavoured markdown, in which no name or message of the code under test acts as markup."""

import re

from equivcheck.report import time_table
from equivcheck.report.clean_text import clean
from equivcheck.report.closing_lines import (
    coverage_lines,
    levels_line,
    remembered_lines,
    sensitivity_line,
    shortened_lines,
    verdict_line,
)
from equivcheck.report.model import Counterexample, Report
from equivcheck.report.summary import summary_lines
from equivcheck.report.table import HEADINGS, remarks, rows

__all__ = ["render"]


def render(report: Report) -> str:
    """The report as markdown: the verdict first, then checks, counterexamples, notes, sensitivity, environment."""
    word, _, rest = verdict_line(report).partition(": ")
    lines = [
        f"# equivcheck: {word}",
        "",
        f"**{word}**: {_prose(rest)}",
        "",
        *([*_block("\n".join(summary), "text"), ""] if (summary := summary_lines(report)) else []),
        f"- {_prose(levels_line(report))}",
        f"- reference: {_code(report.reference)}",
        f"- candidate: {_code(report.candidate)}",
        f"- kind {_code(report.kind)}, profile {_code(report.profile)}, seed {report.seed}, {_code(report.created)}",
        *([f"- domain: {_code(report.domain)}"] if report.domain else []),
        *([f"- dtypes {_code(', '.join(report.dtypes))}"] if report.dtypes else []),
        "",
        "## Checks",
        "",
        f"| {' | '.join(HEADINGS)} |",
        "| --- | --- | ---: | ---: | --- |",
    ]
    lines += [
        f"| {_cell(name)} | {outcome} | {cases} | {ratio} | {_cell(where)} |"
        for name, outcome, cases, ratio, where in rows(report)
    ]
    counterexamples = [
        (f"{result.name_of(finding)}{f' at {finding.level}' if finding.level else ''}", finding.counterexample)
        for result in report.shown
        if not result.shortened
        for finding in result.shown
    ]
    if counterexamples:
        lines += ["", "## Counterexamples"]
    for name, counterexample in counterexamples:
        lines += _counterexample(name, counterexample)
    for heading, items in remarks(report):
        lines += [
            "",
            f"## {heading.capitalize()}",
            "",
            *(f"- {_code(name)}: {_prose(remark)}" for name, remark in items),
        ]
    if report.not_covered:
        lines += ["", "## Not covered by the evidence", "", *(f"- {_prose(what)}" for what in report.not_covered)]
    facts = (*shortened_lines(report), *remembered_lines(report), *coverage_lines(report))
    lines += [line for text in facts for line in ("", f"{_prose(text)}.")]
    lines += ["", "## Sensitivity", "", _prose(sensitivity_line(report).partition(": ")[2]) + "."]
    if report.time_spent is not None:
        lines += ["", "## Time spent, all processes", "", "| part | share | seconds |", "| --- | ---: | ---: |"]
        lines += [f"| {part} | {share} | {seconds} |" for part, share, seconds in time_table.rows(report.time_spent)]
        lines += ["", _prose(time_table.longest(report.time_spent)) + "."]
    if report.environment:
        lines += ["", "## Environment", "", "| | |", "| --- | --- |"]
        lines += [f"| {_cell(key)} | {_cell(value)} |" for key, value in sorted(report.environment.items())]
    return "\n".join(lines) + "\n"


def _counterexample(name: str, example: Counterexample) -> list[str]:
    ratio = "" if example.ratio is None else f", ratio {example.ratio:.3g}"
    return [
        "",
        f"### {_code(name)}",
        "",
        f"Case {_code(example.case)}{ratio}:",
        "",
        *_block(example.message, "text"),
        "",
        "Replay:",
        "",
        *_block(example.replay, "sh"),
    ]


def _code(text: str) -> str:
    """`text` as code on one line: nothing in it acts as markup or as a mention."""
    text = clean(" ".join(text.split())) or " "
    fence = "`" * (_longest_run(text) + 1)
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def _cell(text: str) -> str:
    """`text` as code inside a table, with its bars escaped: a bar ends the cell even in code."""
    return _code(text).replace("|", "\\|") if text != "-" else text


def _prose(text: str) -> str:
    """`text` as a sentence in which no character is markup."""
    text = re.sub(r"([\\`*_\[\]|~$])", r"\\\1", clean(" ".join(text.split())))
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("@", "@<!-- -->")


def _block(text: str, language: str) -> list[str]:
    fence = "`" * max(3, _longest_run(text) + 1)
    return [f"{fence}{language}", *clean(text).splitlines(), fence]


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
