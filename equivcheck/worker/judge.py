"""The questions about a pair that a process answers: those about single cases, and run a class of them or plant a fault.

Questions and answers are plain data, so that they can be asked of a process of its own or of the caller's.
"""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from equivcheck.cases.case import Case
from equivcheck.engine.covering import chosen
from equivcheck.engine.plan import shrink_calls
from equivcheck.engine.planting import planted
from equivcheck.engine.remembered_cases import standing
from equivcheck.engine.search import Search, seed_for
from equivcheck.engine.sensitivity import Plants, Ran
from equivcheck.engine.strata import classes
from equivcheck.report.catalogue import round_of
from equivcheck.report.outcomes import CaseOutcome
from equivcheck.runtime import clock
from equivcheck.worker.on_cases import OnCases

__all__ = ["Judge"]


class Judge(OnCases):
    """One pair, and the questions about it: those of `OnCases`, and those on classes of cases and planted faults.

    Attributes:
        access: The record of what foreign code uses.
    """

    _plants: Plants | None = None

    # --- questions: each method is one, its arguments and its answer are plain data -----------------------------------

    def piece(
        self,
        check: str,
        number: int,
        known: Sequence[Mapping[str, Any]] = (),
        shrinks: float = math.inf,
        seconds: float = math.inf,
        most: int | None = None,
        case: str | None = None,
    ) -> dict[str, Any]:
        """Draw and run one class of a check's cases; cases with `known` outcomes are not run again.

        Args:
            check: The check's name.
            number: The number of the class.
            known: Outcomes of cases, as plain data.
            shrinks: The most cases that are run to make a failing one small.
            seconds: The time that is left, in s.
            most: The greatest number of cases; None for all of the class.
            case: The id of the one case to run in the place of a class; None to draw.

        Returns:
            The id of the smallest failing case or None, whether time ran out, and the seconds that it took.
        """
        one, options = self._round(check), self._options
        planned = self._planned[one.name]
        search = Search(
            one,
            self.subject,
            planned,
            min(shrinks, shrink_calls(one, options["profile"], planned)),
            time.monotonic() + min(seconds, 1e9),
            known={outcome.case: outcome for outcome in map(CaseOutcome.of, known)},
            began=self._begin,
            ended=self._ended,
            dtypes=options["usable"],
            most=math.inf if most is None else most,
        )
        with clock.in_stage(one.name):
            if case is None:
                with clock.in_part(clock.DRAWING):
                    drawn_from = classes(one, self.subject, options["usable"], planned, profile=options["profile"])
                    drawn_from += chosen(self._rows.get(one.name, {}))
                search.run(drawn_from, seed_for(options["seed"], one.name), only=number)
            else:
                search.again(Case.parse(case))
        minimal = None if search.minimal is None else search.minimal.id
        return {"minimal": minimal, "stopped": search.stopped, "seconds": search.seconds}

    def standings(self, cases: Sequence[tuple[str, str]]) -> list[str]:
        """Of each pair of a check and a case of an earlier run whether it can be run: `now`, `later` or `never`."""
        of_run = {"subject": self.subject, "checks": self._checks, "dtypes": self._options["usable"]}
        return [standing(round_of(check)[0], case, **of_run) for check, case in cases]

    def ran(self, checks: Mapping[str, Mapping[str, Any]]) -> None:
        """Record which cases the checks judged: planted faults are tried on them."""
        self._plants = Plants(
            self.subject,
            [
                Ran(self._checks[name], of["planned"], tuple(map(Case.parse, of["cases"])), of["failed"])
                for name, of in checks.items()
            ],
            self._options["profile"],
            self._options["seed"],
            self._options["usable"],
            self._checks,
        )

    @property
    def _faults(self) -> Plants:
        assert self._plants is not None, "`ran` comes before the questions about faults"
        return self._plants

    def faults(self) -> list[list[str]]:
        """The names of the faults to look for, of those that are left out, and the levels of the former."""
        with clock.in_stage(clock.SENSITIVITY):
            chosen, left_out = self._faults.chosen()
        return [chosen, left_out, [self._faults.level_of(name) for name in chosen]]

    def faults_of_shard(self, number: int, of: int) -> list[dict[str, Any]]:
        """The planted faults of the whole run, with the decisions that this shard makes on some of them."""
        with clock.in_stage(clock.SENSITIVITY):
            return self._faults.of_shard(number, of)

    def detect(self, fault: str, seconds: float) -> str | None:
        """The first detection of a fault: `""` if there is none, None if time ran out."""
        with clock.in_stage(clock.SENSITIVITY):
            return self._faults.detect(fault, time.monotonic() + min(seconds, 1e9), self._begin)

    def changes_nothing(self, fault: str) -> bool:
        """Whether an undetected fault changes nothing around this original."""
        with clock.in_stage(clock.SENSITIVITY):
            return self._faults.changes_nothing(fault)

    def watch(self) -> None:
        """Import what times, which no verdict needs: before the pair is, so that the pair cannot stand in its way."""
        import equivcheck.engine.timed_calls  # noqa: F401

    def timed(self, dtypes: Sequence[str], seconds: float) -> dict[str, Any]:
        """The times of the pair in turn, with some results of the timed calls compared."""
        from equivcheck.engine.timed_calls import timed_calls

        return timed_calls(self.subject, dtypes, seconds)

    def has_faults(self, check: str, dtype: str, profile: str) -> bool:
        """Whether there is a fault around this original that the check should see in this dtype."""
        return any(not fault.doubtful for fault in planted(self.subject, {check}, profile, 0, (dtype,)))
