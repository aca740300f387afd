"""The counterexamples of earlier runs of a pair, run again before anything else, and apart from the drawn cases."""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from equivcheck.report.catalogue import round_of
from equivcheck.report.deviations import apply_deviation
from equivcheck.report.model import CheckResult, Deviation
from equivcheck.report.outcomes import CaseOutcome, check_result
from equivcheck.supervisor.deaths import Lost
from equivcheck.supervisor.differences import Differences
from equivcheck.supervisor.first_difference import FirstDifference
from equivcheck.supervisor.listener import Listener
from equivcheck.supervisor.memory import Entry, Memory, PairKey, entries_of
from equivcheck.supervisor.piece import Piece
from equivcheck.supervisor.request import Request
from equivcheck.supervisor.workers_interface import Workers

__all__ = ["STAGE", "Remembered"]

STAGE = "remembered"
"""The name of this stage for a listener."""


@dataclass
class Remembered:
    """The remembered counterexamples of one pair in one run.

    Attributes:
        memory: The file that they are in.
        workers: The processes that run the pair.
        request: The user's request.
        listener: Its method `progress` is called with the number of cases that are done.
        results: The result of each case that was run, in the order in which they were remembered.
    """

    memory: Memory
    workers: Workers
    request: Request
    listener: Listener
    results: list[CheckResult] = field(default_factory=list)
    _key: PairKey | None = None
    _left: list[Entry] = field(default_factory=list)  # neither run nor to be forgotten
    _different: list[Entry] = field(default_factory=list)
    _deadly: list[Entry] = field(default_factory=list)  # they cost the most, and are run last of those that differ
    _passed: list[Entry] = field(default_factory=list)

    def run(
        self,
        key: PairKey,
        plan: Mapping[str, Any],
        accepted: Mapping[str, Deviation],
        required: Collection[str],
        first_difference: FirstDifference,
    ) -> bool:
        """Run the cases of a pair again; whether the run ends with them, which it does if it is to fail fast.

        Args:
            key: The pair.
            plan: The answer to the question `plan`.
            accepted: Name of a check -> the difference that is accepted.
            required: The levels that the verdict rests on.
            first_difference: It is given the outcome of each case.
        """
        self._key = key
        entries = self._that_can_be_run(self.memory.entries(key))
        if not entries:
            return False
        checks = {check["name"]: check for check in plan["checks"]}
        pieces = [Piece(entry.check, 0, case=entry.case) for entry in entries]
        self._left += entries

        def on_case(name: str, outcome: CaseOutcome) -> None:
            first_difference.of(round_of(name)[0], outcome)

        with self.workers.apart():
            self.workers.begin(pieces, on_case)
            for number, (entry, piece) in enumerate(zip(entries, pieces, strict=True)):
                self.listener.progress(STAGE, number, len(pieces))
                self.workers.finish([piece])
                result = self._result(entry, piece, checks[round_of(entry.check)[0]], accepted)
                levels = result.levels.items() if result is not None else ()
                if self.request.fail_fast and any(o == "different" and level in required for level, o in levels):
                    return True
            self.listener.progress(STAGE, len(pieces), len(pieces))
        return False

    def _that_can_be_run(self, entries: Sequence[Entry]) -> list[Entry]:
        """The entries that this run takes; those that a run with other options may take are left as they are."""
        standings = ["later"] * len(entries)
        with suppress(Lost):
            if entries:
                standings = self.workers.answer("standings", cases=[(entry.check, entry.case) for entry in entries])
        self._left = [entry for entry, standing in zip(entries, standings, strict=True) if standing == "later"]
        return [entry for entry, standing in zip(entries, standings, strict=True) if standing == "now"]

    def _result(
        self, entry: Entry, piece: Piece, check: Mapping[str, Any], accepted: Mapping[str, Deviation]
    ) -> CheckResult | None:
        """The result of a case; None if it was not run, or is one that the original refuses."""
        searched = piece.searched
        outcome = next(iter((*searched.failed.values(), *searched.passed.values())), None)
        if outcome is None:
            return None
        self._left.remove(entry)
        if outcome.outside:
            return None
        name = check["name"]
        searched.minimal = next(iter(searched.failed), None)
        Differences(self.workers).explain(name, searched, in_words=False)
        result = check_result(name, searched, planned=1, judges=check["judges"], replay=check["replay"], refused={})
        result = replace(result, worst_case=outcome.case)
        if outcome.failed is None:
            self._passed.append(entry)
        else:
            (self._deadly if outcome.died else self._different).append(entry)
            result = replace(apply_deviation(result, accepted), notes=())
        self.results.append(result)
        return result

    def remember(self, results: Sequence[CheckResult]) -> None:
        """Remember the counterexamples of the run, and the earlier ones behind them.

        Args:
            results: The results of the run's checks.
        """
        if self._key is not None:
            differ = [*self._different, *self._deadly, *entries_of(results)]
            self.memory.keep(self._key, [*differ, *self._left, *self._passed])
