"""The progress of a run on standard error: bars on a terminal, else a line for each check or row."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from equivcheck.cli.colours import moves
from equivcheck.report.clean_text import clean, one_line
from equivcheck.report.model import CheckResult
from equivcheck.report.table import console
from equivcheck.supervisor.listener import Listener

if TYPE_CHECKING:  # rich is a slow import, and a pipe does not need it
    from rich.progress import Progress, TaskID

__all__ = ["follow", "follow_rows"]

_MOST_LETTERS = 200  # of the message of a difference


@contextmanager
def follow(stream: TextIO | None = None) -> Iterator[Listener]:
    """A listener for one run; it writes to `stream` (standard error by default), and leaves the terminal as it was."""
    stream = sys.stderr if stream is None else stream
    if not moves(stream):
        yield _Lines(stream)
        return
    with _bars_on(stream, name_first=True) as bars:
        yield _Bars(bars)


@contextmanager
def follow_rows(stream: TextIO) -> Iterator[Callable[[str, int, int], None]]:
    """A listener for one benchmark, called with the name of a row, the number of steps done, and that of all steps."""
    if not moves(stream):

        def line(name: str, done: int, total: int) -> None:
            if name:
                with suppress(BrokenPipeError):
                    print(f"{done + 1} of {total}: {name}", file=stream, flush=True)

        yield line
        return
    with _bars_on(stream, name_first=False) as bars:
        task = bars.add_task("", total=None)

        def bar(name: str, done: int, total: int) -> None:
            bars.update(task, description=name, completed=done, total=total)

        yield bar


def _bars_on(terminal: TextIO, *, name_first: bool) -> "Progress":
    """Bars on `terminal`, which go away at the end; the output of others in the meantime is left alone."""
    from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from equivcheck.cli.outcome_bar import OutcomeBar

    name = TextColumn("{task.description}", markup=False)
    bar = (OutcomeBar(), MofNCompleteColumn(), TimeElapsedColumn())
    columns = (name, *bar) if name_first else (*bar, name)
    screen = console(terminal)
    return Progress(*columns, console=screen, transient=True, redirect_stdout=False, redirect_stderr=False)


class _Lines:
    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def progress(self, stage: str, done: int, total: int) -> None:
        if stage == "sensitivity" and done == total:
            self._say(f"{stage}: {total} planted fault{'s' if total != 1 else ''} tried")

    def finished(self, result: CheckResult) -> None:
        ratio = "" if result.worst_ratio is None else f", worst ratio {result.worst_ratio:.3g}"
        self._say(f"{result.name}: {result.outcome}, {result.cases} cases{ratio}, {result.seconds:.1f} s")

    def differs(self, check: str, level: str, case: str, message: str) -> None:
        self._say(_difference(check, level, case, message))

    def _say(self, line: str) -> None:
        with suppress(BrokenPipeError):  # the reader has closed the pipe: no reason to stop the run
            print(clean(line), file=self._stream, flush=True)


class _Bars:
    def __init__(self, bars: "Progress") -> None:
        self._bars = bars
        self._tasks: dict[str, TaskID] = {}

    def progress(self, stage: str, done: int, total: int) -> None:
        self._bars.update(self._task(stage), completed=done, total=total)

    def finished(self, result: CheckResult) -> None:
        task = self._task(result.name)
        total = max(result.cases, 1)
        words = clean(f"{result.name}: {result.outcome}")
        self._bars.update(task, description=words, completed=total, total=total, outcome=result.outcome)
        self._bars.stop_task(task)

    def differs(self, check: str, level: str, case: str, message: str) -> None:
        self._bars.console.print(_difference(check, level, case, message), markup=False, soft_wrap=True)

    def _task(self, stage: str) -> "TaskID":
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(clean(stage), total=None)
        return self._tasks[stage]


def _difference(check: str, level: str, case: str, message: str) -> str:
    at = f" at {level}" if level else ""
    return clean(one_line(f"different{at}: {check} on {case}: {message.strip().partition(chr(10))[0][:_MOST_LETTERS]}"))
