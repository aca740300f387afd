"""The questions about single cases of a pair: run a check on one, explain a difference, replay it, write a script of it."""

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
from equivcheck.engine.place import place
from equivcheck.engine.plan import shrink_calls
from equivcheck.engine.region import MOST_VARIANTS, Around, region_of
from equivcheck.engine.replay_script import script, trial
from equivcheck.engine.script_facts import facts_of, refusal
from equivcheck.engine.search import Search
from equivcheck.errors import Mismatch
from equivcheck.pairs.pair import Pair
from equivcheck.report.catalogue import round_of
from equivcheck.report.diagnosis import Diagnosis
from equivcheck.report.outcomes import CaseOutcome, can_be_explained
from equivcheck.runtime import beacon, clock
from equivcheck.runtime.file_access import Access
from equivcheck.worker.plan import replay_line
from equivcheck.worker.planned import Planned

__all__ = ["OnCases"]


class OnCases(Planned):
    """One pair, with the questions of `Planned`, and those about single cases.

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

    def _begin(self, case: Case) -> None:
        beacon.note_case(case.id)
        keys = case.kv_len or case.seq_len
        work = case.batch_size * case.n_head * case.seq_len * keys * (case.head_size + case.value_size)
        self._began(case.id, float(work * max(1, case.n_layer)))

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
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "region": lambda: self._region(check, failed, ratios, passed),
            "place": lambda: vars(place(self.subject, check, failed)),
            "cause": lambda: {"causes": causes_of(self.subject, failed, gradients=check != "output")},
        }
        known: dict[str, Any] = {}
        gaps: list[str] = []
        with clock.in_stage(round_of(check)[0]):
            for name, part in parts.items():
                try:
                    known |= part()
                except Exception as error:  # a difference must not be lost because no more can be said of it
                    reason = f"{type(error).__name__}: {error}".splitlines()[0]
                    gaps.append(f"no {name} was looked for, by a defect of equivcheck ({reason}): please report it")
        return Diagnosis(**known, gaps=tuple(gaps)).plain()

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
            fails = outcome["failed"] is not None and can_be_explained(name, CaseOutcome.of(outcome))
            diagnosis = self.explain(name, [parsed.id]) if fails else Diagnosis().plain()
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
