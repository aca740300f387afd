"""The first difference at each required level, which a listener is given at once, before it is made small."""

from collections.abc import Collection, Mapping

from equivcheck.report.catalogue import level_at
from equivcheck.report.deviations import is_declared
from equivcheck.report.model import Deviation
from equivcheck.report.outcomes import CaseOutcome
from equivcheck.supervisor.listener import Listener

__all__ = ["FirstDifference"]


class FirstDifference:
    """Looks at each outcome, and gives a listener that has a method `differs` the first difference at each level."""

    def __init__(self, listener: Listener, accepted: Mapping[str, Deviation], required: Collection[str]) -> None:
        """Know of no difference yet.

        Args:
            listener: The receiver of the run's progress.
            accepted: Name of a check or finding -> the difference that is accepted.
            required: The levels that it looks at: a difference at another one does not decide the verdict.
        """
        self._differs = getattr(listener, "differs", None)
        self._accepted, self._required = accepted, {*required, ""}
        self._levels: set[str] = set()

    def of(self, check: str, outcome: CaseOutcome) -> None:
        """Take the outcome of a case of a check."""
        if outcome.failed is None or is_declared(check, outcome.finding, self._accepted):
            return
        level = level_at(check, outcome.finding)
        if level in self._levels or level not in self._required:
            return
        self._levels.add(level)
        if self._differs is not None:
            self._differs(check, level, outcome.case, outcome.failed)
