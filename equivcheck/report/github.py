"""A run on GitHub: a page for the summary of a step, and annotations at the line that defines the candidate."""

import os
from collections.abc import Mapping

from equivcheck.report import markdown
from equivcheck.report.clean_text import clean
from equivcheck.report.closing_lines import verdict_line
from equivcheck.report.model import Report

__all__ = ["annotations", "error", "on_github", "summary"]

_LARGEST = 1_000_000  # bytes of a step's summary; GitHub drops one of more than 1 MiB whole
_CUT = "\n\nThe rest is cut off: GitHub shows no summary of more than 1 MiB. The report has all of it.\n"
_MOST = 10  # annotations that GitHub shows of one step


def on_github(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is a step of a GitHub workflow."""
    return environment.get("GITHUB_ACTIONS") == "true"


def annotations(report: Report) -> list[str]:
    """An `::error` for each check that is different, or one with the verdict; none where it is `equivalent`, or of a shard."""
    if report.verdict == "equivalent" or (report.shard is not None and report.verdict == report.shard.name):
        return []
    messages = [("equivcheck: finding", finding) for finding in report.findings] + [
        (
            f"equivcheck: {result.name_of(finding)} is different{f' at {finding.level}' if finding.level else ''}",
            _with_replay(finding.counterexample.message, finding.counterexample.replay),
        )
        for result in report.shown
        if not result.shortened
        for finding in result.shown
        if finding.outcome == "different" and (not finding.level or finding.level in report.required)
    ]
    if len(messages) > _MOST or not messages:
        messages = [*messages[: _MOST - 1], (f"equivcheck: {report.verdict}", verdict_line(report))]
    return [error(message, title, report.candidate_file, report.candidate_line) for title, message in messages]


def error(message: str, title: str, file: str | None = None, line: int | None = None) -> str:
    """One `::error` command, in which no character of a stranger's begins another."""
    properties = {"file": file, "line": None if line is None else str(line), "title": title}
    listed = ",".join(f"{name}={_property(value)}" for name, value in properties.items() if value)
    return f"::error {listed}::{_data(message)}"


def summary(report: Report) -> str:
    """The report as markdown for the summary of a step, cut where GitHub would drop it whole."""
    page = markdown.render(report)
    if len(page.encode()) > _LARGEST:
        page = page.encode()[:_LARGEST].decode("utf-8", "ignore").rpartition("\n")[0] + _CUT
    return page + "\n"


def _with_replay(message: str, replay: str) -> str:
    return f"{message}\nreplay: {replay}"


def _data(text: str) -> str:
    return clean(text).replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
