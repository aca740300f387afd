"""The events of a run as lines of JSON on standard output, for programs that follow it."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import wraps
from typing import Any, TextIO, TypeVar

import click

from equivcheck.cli.values import Choice
from equivcheck.errors import UsageError
from equivcheck.report import streams
from equivcheck.report.codec import plain
from equivcheck.report.differences import difference
from equivcheck.report.exits import EXITS, exit_reason
from equivcheck.report.model import CheckResult, Report
from equivcheck.report.outputs import Outputs
from equivcheck.supervisor.listener import Listener

__all__ = ["Events", "with_events"]

F = TypeVar("F", bound=Callable[..., int])


def with_events(command: F) -> F:
    """Give `command` the option `--format`, and the argument `events`: None unless lines of JSON are wanted.

    Whatever the command returns or raises, the last line is the event `verdict`.
    """

    @click.option(
        "--format",
        "form",
        type=Choice(("text", "jsonl")),
        default="text",
        help="A table, or each event as a line of JSON as soon as it is known.  [default: text]",
    )
    @wraps(command)
    def run(*arguments: Any, form: str, **options: Any) -> int:
        events = Events(streams.current()) if form == "jsonl" else None
        try:
            status = command(*arguments, events=events, **options)
        except BaseException as error:
            if events is not None:
                events.failed(error)
            raise
        if events is not None:
            events.ended(status)
        return status

    return run  # type: ignore[return-value]  # the same command with one option more


class Events:
    """Writes one line for each event; no other text goes to standard output then.

    Attributes:
        report: The report of the run, once it has ended.
    """

    def __init__(self, both: streams.Streams) -> None:
        """Reserve standard output."""
        self.report: Report | None = None
        self._stream: TextIO = both.out
        self._shown: set[str] = set()
        both.reserve(both.out)

    def started(self, outputs: Outputs, **facts: Any) -> None:
        """Write what is asked for.

        Args:
            outputs: The places of the report, none of which may be standard output as well.
            facts: The pair and the options.

        Raises:
            UsageError: A report is written to standard output.
        """
        if outputs.writes_to(self._stream):
            raise UsageError("--format jsonl writes to standard output, and so does a report: give that a file")
        self._write("started", facts)

    def around(self, listener: Listener) -> Listener:
        """A listener that writes events, and passes everything on to this one."""
        return _Writing(self, listener)

    def result(self, result: CheckResult) -> None:
        """Write the result of a check."""
        self._shown.add(result.name)
        facts = {name: getattr(result, name) for name in ("outcome", "levels", "cases", "seconds")}
        facts |= {name: getattr(result, name) for name in ("worst_ratio", "worst_case", "not_judged", "shortened")}
        facts["differences"] = [
            difference(result, finding) for finding in result.shown if finding.outcome == "different"
        ]
        self._write("result", {"check": result.name, **facts})

    def difference(self, check: str, level: str, case: str, message: str) -> None:
        """Write the first difference at a level, which is not made small yet."""
        self._write("difference", {"level": level, "check": check, "case": case, "message": message})

    def ended(self, status: int) -> None:
        """Write the last lines of a run that has a report and ends with this status."""
        assert self.report is not None, "the run has ended"
        self._end(exit_reason(self.report), status)

    def failed(self, error: BaseException) -> None:
        """Write the last lines of a run that ends by an exception."""
        usage = isinstance(error, UsageError | click.ClickException)
        if self.report is not None and usage:
            reason = "unwritable"  # all that is left after a run is to write its files
        elif isinstance(error, KeyboardInterrupt | click.Abort):
            reason = "interrupted"
        else:
            reason = "unusable" if usage or isinstance(error, SystemExit) else "internal"
        self._end(reason, EXITS[reason][0], str(error))

    def _end(self, reason: str, status: int, message: str = "") -> None:
        report = self.report
        if report is not None:
            for result in report.results:  # those of a run that was cut short
                if result.name not in self._shown:
                    self.result(result)
            of = report.sensitivity
            names = ("planted", "survived", "caught_by", "without_effect", "untried", "skipped")
            self._write("sensitivity", {name: getattr(of, name) for name in names})
        facts: dict[str, Any] = {
            "verdict": "not judged" if report is None else report.verdict,
            "levels": {} if report is None else report.levels,
            "required": () if report is None else report.required,
            "complete": report is not None and report.complete,
            "findings": () if report is None else report.findings,
            "exit_status": status,
            "exit_reason": reason,
            "message": message or EXITS[reason][1],
        }
        self._write("verdict", facts)

    def _write(self, event: str, facts: Mapping[str, Any]) -> None:
        line = json.dumps({"event": event, **plain(dict(facts))}, allow_nan=False)
        with suppress(BrokenPipeError):  # the reader has closed the pipe: no reason to stop the run
            self._stream.write(f"{line}\n")
            self._stream.flush()


class _Writing:
    """A listener that writes events beside another listener."""

    def __init__(self, events: Events, listener: Listener) -> None:
        self._events, self._listener = events, listener

    def progress(self, stage: str, done: int, total: int) -> None:
        self._listener.progress(stage, done, total)

    def finished(self, result: CheckResult) -> None:
        self._events.result(result)
        self._listener.finished(result)

    def differs(self, check: str, level: str, case: str, message: str) -> None:
        self._events.difference(check, level, case, message)
        if (differs := getattr(self._listener, "differs", None)) is not None:
            differs(check, level, case, message)
