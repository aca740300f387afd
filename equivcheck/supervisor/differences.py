"""The differences of a check: each is made small, explained, and looked behind for further ones."""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from equivcheck.report.catalogue import level_at, passing_over
from equivcheck.report.diagnosis import Diagnosis
from equivcheck.report.levels import VALUES
from equivcheck.report.outcomes import Searched, can_be_explained
from equivcheck.supervisor.deaths import Lost
from equivcheck.supervisor.piece import Piece
from equivcheck.supervisor.workers_interface import Workers

__all__ = ["Differences", "copied", "first_failing", "together"]


class Differences:
    """Asks the workers for what a report says about the differences of a check."""

    def __init__(self, workers: Workers, *, vary_all: bool = False) -> None:
        """Know of no difference yet.

        Args:
            workers: The processes that run the pair.
            vary_all: Whether each difference has its region, and not only the first one of each level.
        """
        self._all = vary_all
        self.workers = workers
        self._spent = False  # processes have died for a small counterexample
        self._varied: set[str] = set()  # levels of which the first difference has a region

    def finish(self, pieces: Sequence[Piece]) -> None:
        """Finish pieces, up to the first that fails, with its counterexample made small."""
        self.workers.finish(pieces)
        failing = next((piece for piece in pieces if piece.done and piece.searched.minimal is not None), None)
        if failing is None:
            return
        died = next(iter(failing.searched.failed.values())).died
        self.workers.make_small(failing, spend=not self._spent)
        self._spent = self._spent or bool(died)

    def further_rounds(self, check: str, pieces: Sequence[Piece]) -> list[Searched]:
        """Run a check again for as long as it has another finding, with the earlier ones passed over.

        A finding at one level must not hide one at another. The main finding of a check cannot be passed over.
        """
        rounds: list[Searched] = []
        over: list[str] = []
        last = together(pieces)
        while (smallest := last.failed.get(last.minimal or "")) is not None:
            if not smallest.finding or smallest.finding in over or smallest.died:
                break
            over.append(smallest.finding)
            again = [Piece(passing_over(check, over), piece.number) for piece in pieces]
            self.workers.add(again)
            self.finish(again)
            last = together(again)
            self.explain(check, last, again)
            rounds.append(last)
        return rounds

    def explain(self, name: str, searched: Searched, pieces: Sequence[Piece] = (), *, in_words: bool = True) -> None:
        """Add to a difference its explanation, if that is asked for, and what an ordinary call shows on its case.

        Args:
            name: The name of the check.
            searched: Its cases, up to the first that fails.
            pieces: Its pieces. Only the cases of the one that fails are looked at: other shards have the others.
            in_words: Whether an explanation is asked for.
        """
        if searched.minimal is None or searched.failed[searched.minimal].died:
            return
        smallest = searched.failed[searched.minimal]
        level = level_at(name, smallest.finding)
        if in_words and can_be_explained(name, smallest):
            of_class = next((piece.searched for piece in pieces if piece.searched.minimal is not None), searched)
            searched.diagnosis = self._diagnosis(name, of_class, vary=self._all or level not in self._varied)
            self._varied.add(level)
        numbers = math.isfinite(math.inf if smallest.ratio is None else smallest.ratio)
        if level in ("", VALUES) or not (numbers or smallest.origin.startswith("Raised")):
            return
        with suppress(Lost):
            if plainly := str(self.workers.answer("plainly", case=searched.minimal)):
                searched.level = VALUES
                searched.diagnosis = replace(searched.diagnosis, plainly=plainly)

    def _diagnosis(self, check: str, searched: Searched, *, vary: bool) -> Diagnosis:
        """The diagnosis of a difference; only the first one of a level is varied, so that a run stays fast."""
        failed = [outcome for outcome in searched.failed.values() if not outcome.died]
        failed.sort(key=lambda outcome: outcome.case != searched.minimal)
        passed = [o.case for o in searched.passed.values() if o.judged and not o.outside and not o.unsupported]
        try:
            answer = self.workers.answer(
                "explain",
                check=check,
                cases=[outcome.case for outcome in failed],
                ratios=[math.inf if o.ratio is None or math.isnan(o.ratio) else o.ratio for o in failed],
                passed=passed if vary else None,
            )
        except Lost:
            return Diagnosis()
        return Diagnosis.of(answer)


def together(pieces: Sequence[Piece]) -> Searched:
    """The cases of pieces, up to the first that fails."""
    return first_failing([piece.searched for piece in pieces])


def first_failing(classes: Sequence[Searched]) -> Searched:
    """The cases of classes, up to the first that fails, with the diagnosis of its difference if it has one."""
    searched = Searched()
    for one in classes:
        searched.take(one)
        if one.minimal is not None:
            searched.diagnosis, searched.level = one.diagnosis, one.level
            break
    return searched


def copied(pieces: Sequence[Piece]) -> Searched:
    """The cases of pieces as they are now: the rest of the pieces is run later."""
    searched = Searched()
    for piece in pieces:
        searched.take(piece.searched)
    return searched
