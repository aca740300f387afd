"""The verdict on a case of which a process died: the case is run again in a fresh process, alone."""

import math
from dataclasses import replace

from equivcheck.report.outcomes import CaseOutcome, Searched
from equivcheck.supervisor.deaths import Death, confirmed, death_of
from equivcheck.supervisor.piece import Piece
from equivcheck.supervisor.pool import Pool
from equivcheck.supervisor.workers import Worker

__all__ = ["Confirmation", "death_outcome"]

_MOST_OF_REFERENCE = 3  # deaths of the original in one class, after which the class is left
_MOST_IN_ALL = 9  # deaths in a run, after which one is enough to leave a class
_MOST_FORGIVEN = 2  # deaths in a run that no second process repeats, in code of the original or of equivcheck
_SLOW = 0.5  # of the time limit: a case that takes so long alone is slow; a faster one hung for another reason


class Confirmation:
    """Runs cases again of which a process died, and finds the side whose code it died in.

    Attributes:
        gaps: In words, the cases that were not judged because of deaths that are not the candidate's.
    """

    def __init__(self, pool: Pool) -> None:
        """Know of no death yet.

        Args:
            pool: The workers; it starts one more for each case that is run again.
        """
        self._pool = pool
        self.gaps: list[str] = []
        self._of_reference = self._forgiven = 0

    def begin(self) -> None:
        """Forget the deaths of the run before."""
        self.gaps.clear()
        self._of_reference = self._forgiven = 0

    def settle(self, worker: Worker, piece: Piece, case: str, death: Death) -> None:
        """Run a case again in a fresh process, alone, and put its outcome into the journal of its piece.

        Args:
            worker: The worker that died.
            piece: The piece that it ran.
            case: The case that it ran.
            death: How it died.
        """
        if self._pool.hangs and death.how == "hang":
            piece.journal[case] = death_outcome(
                case, death, f"{death.description}, as on another case in a fresh process, too"
            )
            return
        if self._of_reference >= _MOST_IN_ALL and death.side != "candidate":
            piece.of_reference = _MOST_OF_REFERENCE
            self._not_judged(piece, case, death, death.side)
            return
        alone = self._pool.alone(piece.check, case, worker.work, linger=death.how == "fork")
        if death.outside and alone.died and death_of(alone).outside:
            # who ends processes from outside may have met this one as well: two on one case prove nothing
            alone = self._pool.alone(piece.check, case, worker.work)
        if alone.died:
            second = death_of(alone)
            side = death.side if death.side == second.side else second.side
            if side == "candidate":
                self._pool.hangs = self._pool.hangs or second.how == "hang"
                piece.journal[case] = death_outcome(case, death, confirmed(death, second))
            else:
                self._not_judged(piece, case, second, side)
            return
        outcome = CaseOutcome.of(alone.answer) if alone.error is None else None
        if death.how == "hang" and alone.seconds > _SLOW * self._pool.times.limit_s(worker.work, piece.check):
            reason = f"{case} took {alone.seconds:.0f} s: raise --case-seconds"
            self._gap(piece, case, f"not judged: {reason}")
        elif death.outside and death.side != "candidate":
            self._of_another_process(piece, case, outcome)
        else:
            self._once(worker, piece, case, death, outcome)

    def _of_another_process(self, piece: Piece, case: str, outcome: CaseOutcome | None) -> None:
        """Take the outcome of a case whose first process was ended from outside."""
        self._pool.ended_outside()
        if outcome is not None:
            piece.journal[case] = outcome

    def _once(self, worker: Worker, piece: Piece, case: str, death: Death, alone: CaseOutcome | None) -> None:
        """Judge a case of which a process died that answers alone: by what ran before it, or by the second run."""
        again = self._again(worker, piece, case)
        if death.side == "candidate" and again is not None and again.side == "candidate":
            count = sum(len(done.journal) for done in worker.history)
            piece.journal[case] = death_outcome(
                case,
                death,
                f"{death.description} in a process that ran {count} cases before it, and again in another one; "
                "alone it does not",
            )
        elif death.outside:
            self._of_another_process(piece, case, alone)
        else:
            who = f"the process that ran the {death.side or 'original'} {death.description}"
            if again is not None:
                self._gap(piece, case, f"not judged: {who}, and again after the same cases; alone it does not")
            elif death.side == "candidate" or alone is None or self._forgiven >= _MOST_FORGIVEN:
                self._gap(piece, case, f"not judged: {who} once, and not again")
            else:
                self._forgiven += 1
                note = f"{who} once: judged in a second process"
                piece.journal[case] = replace(alone, notes=(*alone.notes, note))

    def _again(self, worker: Worker, piece: Piece, case: str) -> Death | None:
        """The death of a process that runs the pieces of the dead one, if it dies as well."""
        other = self._pool.start()
        try:
            for done in worker.history:
                known = {} if done is not piece else {k: o for k, o in done.journal.items() if o.died}
                asked = other.ask(
                    "piece",
                    check=done.check,
                    number=done.number,
                    known=[outcome.plain() for outcome in known.values()],
                    shrinks=0,
                    seconds=min(1e9, self._pool.left_s),
                    case=done.case,
                )
                self._pool.wait(asked)
                if asked.died:
                    return death_of(asked)
            return None
        finally:
            self._pool.leave(other)

    def _not_judged(self, piece: Piece, case: str, death: Death, side: str) -> None:
        piece.of_reference += 1
        self._of_reference += 1
        who = "the original" if side == "reference" else "equivcheck's own run of the original"
        self._gap(piece, case, f"not judged where {who} {death.description}")
        if piece.of_reference >= _MOST_OF_REFERENCE:
            piece.searched, piece.done = Searched(seconds=piece.searched.seconds), True
            for outcome in piece.journal.values():
                piece.searched.add(outcome)

    def _gap(self, piece: Piece, case: str, reason: str) -> None:
        piece.journal[case] = CaseOutcome(case, judged=False, notes=(reason,), reason="process-died")
        self.gaps.append(f"{piece.check} on {case}: {reason}")


def death_outcome(case: str, death: Death, description: str) -> CaseOutcome:
    """The outcome of a case in which the candidate ends its process."""
    return CaseOutcome(
        case,
        where="the process",
        failed=f"the candidate {description}",
        ratio=math.inf,
        origin=f"process {death.how}",
        died=death.how,
    )
