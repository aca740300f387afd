"""What a run says while it works, on standard error: a bar on a terminal, one line per finished check elsewhere."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Protocol

from equivcheck.report.model import CheckResult
from equivcheck.report.table import clean

if TYPE_CHECKING:  # rich takes its time to import, and a pipe does not need it
    from rich.progress import Progress, TaskID

__all__ = ["Progressing", "follow"]


class Progressing(Protocol):
    """What `verify` tells: how far a stage is (a check's name, or `sensitivity`), and each check that has finished."""

    def progress(self, stage: str, done: int, total: int) -> None: ...
    def finished(self, result: CheckResult) -> None: ...


@contextmanager
def follow() -> Iterator[Progressing]:
    """A listener for the time of one run, which leaves the terminal as it was."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bars:
        yield _Bars(bars)


class _Lines:
    def progress(self, stage: str, done: int, total: int) -> None:
        if stage == "sensitivity" and done == total:
            self._say(f"{stage}: {total} planted fault{'s' if total != 1 else ''} tried")

    def finished(self, result: CheckResult) -> None:
        ratio = "" if result.worst_ratio is None else f", worst ratio {result.worst_ratio:.3g}"
        self._say(f"{result.name}: {result.outcome}, {result.cases} cases{ratio}, {result.seconds:.1f} s")

    @staticmethod
    def _say(line: str) -> None:
        with suppress(BrokenPipeError):  # nobody listens: no reason to stop the run
            print(clean(line), file=sys.stderr, flush=True)


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
