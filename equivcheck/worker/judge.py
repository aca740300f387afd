"""The questions about a pair that a process answers: run a class of a check's cases, explain a difference, plant a fault.

Questions and answers are plain data, so that they can be asked of a process of its own or of the caller's.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS, CaseResult, Check
from equivcheck.checks.base.findings import passing_over
from equivcheck.checks.base.in_full import in_full, made_of
from equivcheck.engine.case_outcomes import outcome_of
from equivcheck.engine.causes import causes_of
from equivcheck.engine.covering import chosen
from equivcheck.engine.place import place
from equivcheck.engine.plan import shrink_calls
from equivcheck.engine.planting import planted
from equivcheck.engine.region import MOST_VARIANTS, Around, region_of
from equivcheck.engine.remembered_cases import standing
from equivcheck.engine.replay_script import script, trial
from equivcheck.engine.script_facts import facts_of, refusal
from equivcheck.engine.search import Search, seed_for
from equivcheck.engine.sensitivity import Plants, Ran
from equivcheck.engine.strata import classes
from equivcheck.errors import Mismatch
from equivcheck.pairs.pair import Pair
from equivcheck.report.catalogue import round_of
from equivcheck.report.diagnosis import Diagnosis
from equivcheck.report.outcomes import CaseOutcome
from equivcheck.runtime import beacon, clock
from equivcheck.runtime.file_access import Access
from equivcheck.worker.plan import replay_line
from equivcheck.worker.planned import Planned

__all__ = ["Judge"]


class Judge(Planned):
    """One pair, and the questions about it: those of `Planned`, and those on checks and planted faults.

    Attributes:
        access: The record of what foreign code uses.
    """

    def __init__(
        self,
        access: Access,
        began: Callable[[str, float], None] = lambda case, work: None,
        ended: Callable[[CaseOutcome], None] = lambda outcome: None,
    ) -> None:
        """Load no pair yet.

        Args:
            access: The record of what foreign code uses.
            began: A function that is given each case before it is run, and a measure of its work.
            ended: A function that is given the outcome of each case.
        """
        super().__init__(access)
        self._began, self._ended = began, ended
        self._plants: Plants | None = None

    def _begin(self, case: Case) -> None:
        beacon.note_case(case.id)
        keys = case.kv_len or case.seq_len
        work = case.batch_size * case.n_head * case.seq_len * keys * (case.head_size + case.value_size)
        self._began(case.id, float(work * max(1, case.n_layer)))

    # --- questions: each method is one, its arguments and its answer are plain data -----------------------------------

    def _round(self, name: str) -> Check:
        """The check of a round, in which findings of earlier rounds are passed over."""
        check, over = round_of(name)
        one = self._checks[check]
        if not over:
            return one

        def run(pair: Pair, case: Case) -> CaseResult:
            with passing_over(over):
                return one.run(pair, case)

        return replace(one, run=run)

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

    def one(self, check: str, case: str) -> dict[str, Any]:
        """Run a check on one case, whatever cases ran before; its outcome."""
        search = Search(self._round(check), self.subject, 1, 0, math.inf, began=self._begin)
        parsed = Case.parse(case)
        try:
            with clock.in_stage(search.check.name):
                search.visit(parsed)
        except Mismatch as mismatch:
            return outcome_of(parsed, mismatch).plain()
        return outcome_of(parsed, search.passed[parsed]).plain()

    def explain(
        self, check: str, cases: Sequence[str], ratios: Sequence[float] = (), passed: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """The diagnosis of a difference.

        Args:
            check: The check's name.
            cases: The failing cases, the smallest first.
            ratios: Their ratios.
            passed: The judged cases that pass; None if nothing is varied around the smallest one.

        Returns:
            A `Diagnosis` as plain data.
        """
        failed = [Case.parse(case) for case in cases]
        region = self._region(check, failed, ratios, passed)
        with clock.in_stage(round_of(check)[0]):
            begins = vars(place(self.subject, check, failed))
            causes = causes_of(self.subject, failed, gradients=check != "output")
            return Diagnosis(causes=causes, **begins, **region).plain()

    def _region(
        self, name: str, failed: Sequence[Case], ratios: Sequence[float], passed: Sequence[str] | None
    ) -> dict[str, Any]:
        """The fields of a diagnosis on the region of a difference; none if no ratios are known."""
        if not ratios:
            return {}
        check, options, most = self._round(name), self._options, 0
        if passed is not None:
            most = min(MOST_VARIANTS, shrink_calls(check, options["profile"], self._planned[check.name]))
        known = Around(
            failed=dict(zip(failed, ratios, strict=True)), passed=[*map(Case.parse, passed or ())], most=most
        )
        return region_of(known, partial(self._outcome_of, name), check, self.subject, options["usable"])

    def _outcome_of(self, check: str, case: Case) -> CaseOutcome:
        return CaseOutcome.of(self.one(check, case.id))

    def replay(
        self,
        case: str,
        checks: Sequence[str] | None,
        require_backend: Sequence[str],
        max_memory_ratio: float | None = None,
    ) -> list[dict[str, Any]]:
        """Run the checks on one case: for each its name, whether it judges, its replay line, the outcome and its ratio."""
        parsed = Case.parse(case)
        self._choose(checks, (), require_backend, max_memory_ratio)
        answers = []
        for name, check in self._checks.items():
            began = time.monotonic()
            with in_full() as compared:
                outcome = self.one(name, parsed.id)
            diagnosis = self.explain(name, [parsed.id]) if outcome["failed"] is not None else Diagnosis().plain()
            answers.append(
                {
                    "name": name,
                    "judges": check.judges,
                    "replay": replay_line(self.subject, check),
                    "outcome": outcome,
                    "made_of": made_of(outcome["where"], compared) if outcome["failed"] is None else "",
                    "diagnosis": diagnosis,
                    "seconds": time.monotonic() - began,
                }
            )
        return answers

    def plainly(self, case: str) -> str:
        """The difference on this case in an ordinary call, without dropout and steps; empty if there is none."""
        parsed = Case.parse(case).but(attn_pdrop=0.0, resid_pdrop=0.0, steps="")
        name = "logits" if self.subject.traits.whole_model or parsed.n_layer else "gradients"
        check = next(check for check in CHECKS if check.name == name)
        search = Search(check, self.subject, 1, 0, math.inf, began=self._begin)
        with suppress(Mismatch):
            search.visit(parsed)
        return next((str(mismatch) for mismatch in search.failed.values()), "")

    def script(self, case: str, spot: Mapping[str, Any], folder: str) -> str:
        """A script of torch alone that shows this difference of the pair, which was run here; `folder` has the pair."""
        source = script(facts_of(self.subject, self._given, Case.parse(case)), spot, folder)
        if (said := trial(source)) != "differs":
            raise refusal(f"without equivcheck the pair does not differ so ({said})")
        return source

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
