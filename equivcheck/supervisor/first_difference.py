"""The first difference at each level, which a listener is given at once, before it is made small."""

from collections.abc import Mapping

from equivcheck.report.catalogue import level_at
from equivcheck.report.deviations import is_declared
from equivcheck.report.model import Deviation
from equivcheck.report.outcomes import CaseOutcome
from equivcheck.supervisor.listener import Listener

__all__ = ["FirstDifference"]


class FirstDifference:
    """Looks at each outcome, and gives the listener the first difference at each level if it has a method `differs`."""

    def __init__(self, listener: Listener, accepted: Mapping[str, Deviation]) -> None:
        """Know of no difference yet.

        Args:
            listener: The receiver of the run's progress.
            accepted: Name of a check or finding -> the difference that is accepted.
        """
        self._differs = getattr(listener, "differs", None)
        self._accepted = accepted
        self._levels: set[str] = set()

    def of(self, check: str, outcome: CaseOutcome) -> None:
        """Take the outcome of a case of a check."""
        if outcome.failed is None or is_declared(check, outcome.finding, self._accepted):
            return
        level = level_at(check, outcome.finding)
        if level in self._levels:
            return
        self._levels.add(level)
        if self._differs is not None:
            self._differs(check, level, outcome.case, outcome.failed)
