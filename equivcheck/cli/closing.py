"""The end of a command that makes a report: its files, its table, and its exit status."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from equivcheck.cli.options import show, show_text
from equivcheck.report.exits import exit_status
from equivcheck.report.outputs import Outputs

if TYPE_CHECKING:
    from equivcheck.report.model import Report

__all__ = ["closed"]


def closed(report: "Report", outputs: Outputs, also: Callable[[], None] = lambda: None, *, shows: bool = True) -> int:
    """Write the files of a report, show its table, and return the exit status.

    Args:
        report: The report.
        outputs: The places of its files.
        also: A function that shows more, after the table.
        shows: Whether the table is shown.

    Raises:
        UsageError: A file could not be written.
    """
    from equivcheck.report import github, table

    failure = outputs.write(report)  # before the table: the files are there even if a reader closes the pipe early
    if shows:
        show(partial(table.show, report))
    also()
    failure = failure or outputs.summary(report)
    if outputs.on_github:
        show_text("".join(f"{line}\n" for line in github.annotations(report)))
    if failure is not None:
        raise failure
    return exit_status(report)
