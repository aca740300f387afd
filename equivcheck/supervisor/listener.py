"""The receiver of a run's progress: the progress bar, or an object of the user with the same two methods."""

from typing import Protocol

from equivcheck.report.model import CheckResult

__all__ = ["Listener", "Silence"]


class Listener(Protocol):
    """Receives the progress of a run; `stage` is the name of a check, `remembered` or `sensitivity`.

    If it has a method `differs(check, level, case, message)` as well, that is called with the first difference at each
    required level as soon as it is seen, before it is made small.
    """

    def progress(self, stage: str, done: int, total: int) -> None: ...

    def finished(self, result: CheckResult) -> None: ...


class Silence:
    """A listener that does nothing."""

    def progress(self, stage: str, done: int, total: int) -> None:
        """Do nothing."""

    def finished(self, result: CheckResult) -> None:
        """Do nothing."""
