"""The checks of a run: workers get pieces, and outcomes are collected in the order of the plan."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from equivcheck.report.catalogue import SCREEN, is_listed, level_at, listed, round_of
from equivcheck.report.deviations import is_declared
from equivcheck.report.model import CheckResult, Deviation
from equivcheck.report.outcomes import CaseOutcome, Searched, not_refuted
from equivcheck.report.shard import Shard
from equivcheck.supervisor.checked import Checked
from equivcheck.supervisor.differences import Differences, copied, together
from equivcheck.supervisor.first_difference import FirstDifference
from equivcheck.supervisor.listener import Listener
from equivcheck.supervisor.piece import Piece
from equivcheck.supervisor.request import Request
from equivcheck.supervisor.results import result_of_check, result_without_classes
from equivcheck.supervisor.shard_record import judged_by_class, recorded
from equivcheck.supervisor.shares import classes_of_shard
from equivcheck.supervisor.workers_interface import Workers

__all__ = ["Checking"]


@dataclass
class Checking(Checked):
    """The checks of one run, and their results.

    Each check's first cases are run before any other. A check that differs there is run first, and so on in the order of
    the plan. Once a level is different, of the checks that look at no other level the first cases are all that counts.

    Attributes:
        workers: The processes that run the pair.
        request: The user's request.
        listener: Its methods are called after each case and each check.
        complete: Whether all of them were run, and none ran out of time.
    """

    workers: Workers
    request: Request
    listener: Listener
    complete: bool = True
    _accepted: Mapping[str, Deviation] = field(default_factory=dict)
    _pieces: dict[str, list[Piece]] = field(default_factory=dict)
    _first: dict[str, Searched] = field(default_factory=dict)
    _queued: set[str] = field(default_factory=set)
    _different: set[str] = field(default_factory=set)  # levels
    _counts: dict[str, int] = field(default_factory=dict)
    _further: dict[str, list[Searched]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._differences = Differences(self.workers, vary_all=self.request.all_cases)

    def run(
        self,
        plan: Mapping[str, Any],
        accepted: Mapping[str, Deviation],
        required: Collection[str],
        finished: Callable[[], None],
        before: Callable[[FirstDifference], bool] | None = None,
    ) -> None:
        """Run the checks.

        Args:
            plan: The answer to the question `plan`.
            accepted: Name of a check -> the difference that is accepted.
            required: The levels that the verdict rests on.
            finished: A function that is called after every check.
            before: A function that is called before the first one; the run ends with it if it returns True.
        """
        self._plan, self._accepted = plan, accepted
        checks = self._plan["checks"]
        classes = classes_of_shard(checks, self.request.shard)
        self._pieces = {
            c["name"]: [Piece(c["name"], n, c["first"].count(n) or None) for n in classes[c["name"]]] for c in checks
        }
        self.workers.ready(
            checks=[c["name"] for c in checks],
            require_backend=list(self.request.require_backend),
            max_memory_ratio=self.request.max_memory_ratio,
            profile=self.request.profile,
            seed=self.request.seed,
            asked=len(self.request.dtypes),
            usable=self._plan["usable"],
            domain=self._plan["drawn_from"],
            rows=self._plan["rows"],
        )
        first_difference = FirstDifference(self.listener, accepted, required)
        if before is not None and before(first_difference):
            self.complete = False
            return
        if self.request.shard is not None:
            checks = [c for c in checks if self._pieces[c["name"]]]
        for check in self._after_first_cases(checks, first_difference):
            self._judge(check)
            self.listener.finished(self._result_of(check["name"]))
            finished()
            if self.request.fail_fast and self._different & set(required):
                self.complete = self.complete and len(self.results) == len(checks)
                break
        notes = self._plan["notes"]
        if self.results and notes:
            self.results[0] = replace(self.results[0], notes=(*notes, *self.results[0].notes))

    @property
    def _screens(self) -> bool:
        """Whether the first cases are all that is run."""
        return self.request.profile == SCREEN

    def _result_of(self, name: str) -> CheckResult:
        return next(result for result in self.results if result.name == name)

    def _after_first_cases(
        self, checks: Sequence[Mapping[str, Any]], first_difference: FirstDifference
    ) -> list[Mapping[str, Any]]:
        """Run the first cases of each check; the checks in the order in which the rest of them is run."""
        planned = {c["name"]: c["planned"] for c in checks}

        def on_case(name: str, outcome: CaseOutcome) -> None:
            check, _ = round_of(name)
            self._counts[check] = self._counts.get(check, 0) + 1
            self.listener.progress(check, min(self._counts[check], planned[check]), planned[check])
            first_difference.of(check, outcome)

        pieces = {c["name"]: self._first_pieces(c) for c in checks}
        self.workers.begin([piece for of_check in pieces.values() for piece in of_check], on_case)
        for name, of_check in pieces.items():
            self.listener.progress(name, self._counts.get(name, 0), planned[name])
            for piece in of_check:
                self.workers.finish([piece])
            self._first[name] = copied(of_check)
        failing = [c for c in checks if self._first[c["name"]].failed]
        likely = {
            level
            for c in failing
            for outcome in self._first[c["name"]].failed.values()
            if (level := level_at(c["name"], outcome.finding))
            and not is_declared(c["name"], outcome.finding, self._accepted)
        }
        in_order = sorted(checks, key=lambda c: not c["slow"])  # slow checks must not start last
        waiting = [c for c in in_order if c not in failing and not self._decided(c["name"], likely)]
        if self._screens:
            waiting = []
        self._queue(waiting)
        return [*failing, *(c for c in checks if c not in failing)]

    def _first_pieces(self, check: Mapping[str, Any]) -> list[Piece]:
        """The pieces whose first cases are run before any others."""
        by_number = {piece.number: piece for piece in self._pieces[check["name"]]}
        return [by_number[number] for number in dict.fromkeys(check["first"]) if number in by_number]

    def _decided(self, name: str, different: Collection[str]) -> bool:
        """Whether all levels that a check looks at are different without it, so that the rest of its cases is left."""
        levels = listed(name).levels if is_listed(name) else ()
        return bool(levels) and set(levels) <= set(different) and not self.request.all_cases

    def _queue(self, checks: Sequence[Mapping[str, Any]]) -> None:
        """Give the workers all cases of checks, those first that are known to differ."""
        pieces: list[Piece] = []
        for check in checks:
            of_check = self._pieces[check["name"]]
            if self._screens:
                of_check[:] = [piece for piece in of_check if piece.searched.failed]
            for piece in of_check:
                piece.failed_first = bool(piece.searched.failed)
            of_check.sort(key=lambda piece: (not piece.failed_first, piece.number))
            for piece in of_check:
                piece.done, piece.most = piece.done and piece.most is None, None
            pieces += of_check
            self._queued.add(check["name"])
        self.workers.add(pieces)

    def _judge(self, check: Mapping[str, Any]) -> None:
        """Make the result of a check: of all its cases, or of the first ones if its levels are different already."""
        name = check["name"]
        self.listener.progress(name, self._counts.get(name, 0), check["planned"])
        if self._same_reason(name):
            self._take_first(check)
        else:
            if name not in self._queued:
                self._queue([check])
            pieces = self._pieces[name]
            self._differences.finish(pieces)
            rounds = self._differences.further_rounds(name, pieces)
            self.complete = self.complete and not any(one.stopped for one in rounds)
            self._further[name] = [one for one in rounds if one.minimal is not None]
            self._take(check, pieces, self._further[name])
        position = [c["name"] for c in self._plan["checks"]].index
        self.results.sort(key=lambda result: position(result.name))
        self._different |= {level for level, outcome in self._result_of(name).levels.items() if outcome == "different"}
        for other in self._queued:
            if all(result.name != other for result in self.results) and self._decided(other, self._different):
                for piece in self._pieces[other]:
                    piece.dropped = True

    def _same_reason(self, name: str) -> bool:
        """Whether the first cases of a check are enough: what they show, if anything, is different without it.

        So is a difference of a property that an ordinary call shows as well, once the values are different.
        """
        first = self._first[name]
        first.minimal = next(iter(first.failed), None)
        if self._screens and first.minimal is None:
            return True
        if first.minimal is None or self.request.all_cases:
            return self._decided(name, self._different)
        self._differences.explain(name, first, in_words=False)
        level = first.level or level_at(name, first.failed[first.minimal].finding)
        return level in self._different and (bool(first.level) or self._decided(name, self._different))

    def _take_first(self, check: Mapping[str, Any]) -> None:
        """Make a result of the first cases of a check, with the first one that fails as it is."""
        searched = self._first[check["name"]]
        self._searched[check["name"]] = searched
        self.complete = self.complete and not searched.stopped
        self._add_result(check, searched, shortened=not self._screens or bool(searched.failed))

    def _take(self, check: Mapping[str, Any], pieces: Sequence[Piece], further: Sequence[Searched]) -> None:
        """Make the result of a check of the outcomes of its pieces."""
        name = check["name"]
        searched = together(pieces)
        self._searched[name] = searched
        if not pieces:
            self.results.append(result_without_classes(name, self._plan["refused"]))
            return
        self._differences.explain(name, searched, pieces)
        self._add_result(check, searched, further)
        self.complete = self.complete and not searched.stopped

    def _add_result(
        self,
        check: Mapping[str, Any],
        searched: Searched,
        further: Sequence[Searched] = (),
        *,
        shortened: bool = False,
    ) -> None:
        result = result_of_check(
            check,
            searched,
            further,
            refused=self._plan["refused"],
            accepted=self._accepted,
            shortened=shortened,
        )
        part = self._screens or self.request.shard is not None
        self.results.append(not_refuted(result) if part else result)

    def recorded(self, shard: tuple[int, int], **more: Any) -> Shard:
        """The record of a shard, as `shard_record.recorded` makes it of its arguments."""
        return recorded(shard, self._plan, self._pieces, self._searched, self._further, **more)

    def judged_by_class(self, checks: Collection[str]) -> dict[str, dict[str, list[str]]]:
        """The judged cases of each class of these checks, as `shard_record.judged_by_class` returns them."""
        return judged_by_class(self._pieces, checks)

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
