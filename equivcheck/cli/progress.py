"""What a run says while it works, on standard error: a bar on a terminal, one line per finished check elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from equivcheck.report.model import CheckResult
from equivcheck.report.table import clean, console
from equivcheck.supervisor.listener import Listener

if TYPE_CHECKING:  # rich takes its time to import, and a pipe does not need it
    from rich.progress import Progress, ProgressColumn, TaskID

__all__ = ["bars_on", "follow"]


@contextmanager
def follow(stream: TextIO | None = None) -> Iterator[Listener]:
    """A listener for the time of one run, which leaves the terminal as it was; it writes to `stream` (standard error)."""
    stream = sys.stderr if stream is None else stream
    if not stream.isatty():
        yield _Lines(stream)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with bars_on(stream, *columns) as bars:
        yield _Bars(bars)


def bars_on(terminal: TextIO, *columns: "ProgressColumn") -> "Progress":
    """Bars with these columns on `terminal`, which go away at the end; what others print in the meantime is left alone."""
    from rich.progress import Progress

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

    def _say(self, line: str) -> None:
        with suppress(BrokenPipeError):  # nobody listens: no reason to stop the run
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
        self._bars.update(task, description=clean(f"{result.name}: {result.outcome}"), completed=total, total=total)
        self._bars.stop_task(task)

    def _task(self, stage: str) -> "TaskID":
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(clean(stage), total=None)
        return self._tasks[stage]
