"""The checks of a run: workers get pieces, and outcomes are collected in the order of the plan."""

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from equivcheck.report.catalogue import is_listed, listed, passing_over, round_of
from equivcheck.report.deviations import apply_deviation
from equivcheck.report.levels import VALUES
from equivcheck.report.model import CheckResult, Deviation
from equivcheck.report.outcomes import Searched, check_result, kernels_by_dtype
from equivcheck.supervisor.deaths import Lost
from equivcheck.supervisor.listener import Listener
from equivcheck.supervisor.piece import Piece
from equivcheck.supervisor.request import Request
from equivcheck.supervisor.workers_interface import Workers

__all__ = ["Checking"]


@dataclass
class Checking:
    """The checks of one run, and their results.

    Attributes:
        workers: The processes that run the pair.
        request: The user's request.
        listener: Its methods are called after each case and each check.
        results: The results of the finished checks, in the order of the plan.
        complete: Whether none of them ran out of time.
    """

    workers: Workers
    request: Request
    listener: Listener
    results: list[CheckResult]
    complete: bool = True
    _plan: Mapping[str, Any] = field(default_factory=dict)
    _accepted: Mapping[str, Deviation] = field(default_factory=dict)
    _searched: dict[str, Searched] = field(default_factory=dict)
    _pieces: dict[str, list[Piece]] = field(default_factory=dict)
    _counts: dict[str, int] = field(default_factory=dict)

    def run(self, plan: Mapping[str, Any], accepted: Mapping[str, Deviation], finished: Callable[[], None]) -> None:
        """Run the checks.

        Args:
            plan: The answer to the question `plan`.
            accepted: Name of a check -> the difference that is accepted.
            finished: A function that is called after every check.
        """
        self._plan, self._accepted = plan, accepted
        checks = self._plan["checks"]
        self._pieces = {c["name"]: [Piece(c["name"], number) for number in range(c["classes"])] for c in checks}
        planned = {c["name"]: c["planned"] for c in checks}
        self.workers.ready(
            checks=[c["name"] for c in checks],
            require_backend=list(self.request.require_backend),
            profile=self.request.profile,
            seed=self.request.seed,
            asked=len(self.request.dtypes),
            usable=self._plan["usable"],
            domain=self._plan["drawn_from"],
        )

        def on_case(name: str) -> None:
            check, _ = round_of(name)
            self._counts[check] = self._counts.get(check, 0) + 1
            self.listener.progress(check, min(self._counts[check], planned[check]), planned[check])

        # slow checks must not start last
        in_order = sorted(checks, key=lambda c: not c["slow"])
        self.workers.begin([piece for c in in_order for piece in self._pieces[c["name"]]], on_case)
        spent = False
        for check in checks:
            self.listener.progress(check["name"], self._counts.get(check["name"], 0), check["planned"])
            pieces = self._pieces[check["name"]]
            spent = self._finish(pieces, spent)
            rounds = self._further_rounds(check, pieces, spent)
            self.complete = self.complete and not any(one.stopped for one in rounds)
            self._take(check, pieces, [one for one in rounds if one.minimal is not None])
            self.listener.finished(self.results[-1])
            finished()
        notes = self._plan["notes"]
        if self.results and notes:
            self.results[0] = replace(self.results[0], notes=(*notes, *self.results[0].notes))

    def _finish(self, pieces: Sequence[Piece], spent: bool) -> bool:
        """Finish pieces, with a counterexample made small; whether deaths have been spent on one by now."""
        self.workers.finish(pieces)
        failing = next((piece for piece in pieces if piece.done and piece.searched.minimal is not None), None)
        if failing is None:
            return spent
        died = next(iter(failing.searched.failed.values())).died
        self.workers.make_small(failing, spend=not spent)
        return spent or bool(died)

    def _further_rounds(self, check: Mapping[str, Any], pieces: Sequence[Piece], spent: bool) -> list[Searched]:
        """Run a check again for as long as it has another finding, with the earlier ones passed over.

        A finding at one level must not hide one at another. The main finding of a check cannot be passed over.
        """
        rounds: list[Searched] = []
        over: list[str] = []
        last = _together(pieces)
        while (smallest := last.failed.get(last.minimal or "")) is not None:
            if not smallest.finding or smallest.finding in over or smallest.died:
                break
            over.append(smallest.finding)
            again = [Piece(passing_over(check["name"], over), piece.number) for piece in pieces]
            self.workers.add(again)
            self._finish(again, spent)
            last = _together(again)
            self._explain(check["name"], last)
            rounds.append(last)
        return rounds

    def _explain(self, name: str, searched: Searched) -> None:
        """Add to a difference its explanation, and what an ordinary call shows on the same case."""
        if searched.minimal is None or searched.failed[searched.minimal].died:
            return
        smallest = searched.failed[searched.minimal]
        others = [case for case, failed in searched.failed.items() if case != searched.minimal and not failed.died]
        searched.explained = self._explained(name, [searched.minimal, *others])
        level = listed(name).level_of(smallest.finding) if is_listed(name) else ""
        numbers = math.isfinite(math.inf if smallest.ratio is None else smallest.ratio)
        if level in ("", VALUES) or not (numbers or smallest.origin.startswith("Raised")):
            return
        with suppress(Lost):
            if plainly := str(self.workers.answer("plainly", case=searched.minimal)):
                searched.level = VALUES
                lines = [searched.explained, f"in an ordinary call, too: {plainly}"]
                searched.explained = "\n  ".join(line for line in lines if line)

    def _take(self, check: Mapping[str, Any], pieces: Sequence[Piece], further: Sequence[Searched]) -> None:
        """Make the result of a check of the outcomes of its pieces."""
        name = check["name"]
        searched = _together(pieces)
        self._searched[name] = searched
        if not pieces:
            refused = tuple(self._plan["refused"].values())
            self.results.append(CheckResult(name, "unsupported", 0, detail="no dtype is left", unsupported=refused))
            return
        self._explain(name, searched)
        self._add_result(check, searched, further)
        self.complete = self.complete and not searched.stopped

    def _add_result(self, check: Mapping[str, Any], searched: Searched, further: Sequence[Searched] = ()) -> None:
        result = check_result(
            check["name"],
            searched,
            planned=check["planned"],
            judges=check["judges"],
            replay=check["replay"],
            refused=self._plan["refused"],
            further=further,
        )
        self.results.append(apply_deviation(result, self._accepted))

    def _explained(self, check: str, cases: Sequence[str]) -> str:
        try:
            return str(self.workers.answer("explain", check=check, cases=cases))
        except Lost:
            return ""

    def rescue(self) -> None:
        """Make a result of each difference that was already seen when the run is cut short."""
        done = {result.name for result in self.results}
        for check in self._plan.get("checks", ()):
            pieces = self._pieces.get(check["name"], ())
            if check["name"] not in done and any(piece.searched.failed for piece in pieces):
                for piece in pieces:
                    piece.searched.minimal = next(reversed(piece.searched.failed), None)
                searched = Searched()
                for piece in pieces:
                    searched.take(piece.searched)
                self._searched[check["name"]] = searched
                self._add_result(check, searched)

    def kernels(self) -> dict[str, str]:
        """The kernels that ran, by dtype."""
        return kernels_by_dtype(self._searched.get("backend"))

    def judged(self) -> dict[str, dict[str, Any]]:
        """Name of a check -> the number of planned cases, the judged and failed cases, and whether one failed."""
        planned = {c["name"]: c["planned"] for c in self._plan["checks"]}
        # a check with a declared deviation stops at its difference: it cannot show which faults it would detect
        ran = {
            result.name: {
                "planned": planned[result.name],
                "cases": [*(o.case for o in s.passed.values() if o.judged), *s.failed],
                "failed": bool(s.failed),
            }
            for result in self.results
            if result.outcome != "deviation" and (s := self._searched[result.name]).cases
        }
        return {name: of for name, of in ran.items() if of["cases"]}

    def cases_of_original(self) -> list[str]:
        """Three cases on which the original is run again: the first, the middle and the last that passed by value."""
        for name in ("gradients", "logits", "output", *self._searched):
            passed = list(self._searched[name].passed) if name in self._searched else []
            if passed:
                return [passed[at] for at in sorted({0, len(passed) // 2, len(passed) - 1})]
        return []


def _together(pieces: Sequence[Piece]) -> Searched:
    """The cases of pieces, up to the first that fails."""
    searched = Searched()
    for piece in pieces:
        searched.take(piece.searched)
        if piece.searched.minimal is not None:
            break
    return searched
