"""Who hears how a run gets on: the progress bar, or an object of the user with the same two methods."""

from typing import Protocol

from equivcheck.report.model import CheckResult

__all__ = ["Listener"]


class Listener(Protocol):
    """Is told how a run gets on; `stage` is a check's name or `sensitivity`."""

    def progress(self, stage: str, done: int, total: int) -> None: ...

    def finished(self, result: CheckResult) -> None: ...
