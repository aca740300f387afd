"""What the end of a process says of the case that it was at: the case is run again in a fresh process, alone."""

import math

from equivcheck.report.outcomes import CaseOutcome, Searched
from equivcheck.supervisor.deaths import Death, confirmed, death_of
from equivcheck.supervisor.piece import Piece
from equivcheck.supervisor.pool import Pool
from equivcheck.supervisor.workers import Worker

__all__ = ["Confirmation", "death_outcome"]

_MOST_OF_REFERENCE = 3  # deaths of the original in one class, after which it is left
_MOST_IN_ALL = 9  # in a run, after which one is enough to leave a class
_SLOW = 0.5  # of the time limit: what takes so long alone is slow; what takes less did not answer for another reason


class Confirmation:
    """Runs cases again of which a process died, and says whose the deaths are.

    Attributes:
        gaps: In words, what could not be judged for deaths that are not the candidate's.
    """

    def __init__(self, pool: Pool) -> None:
        """Know of no death as yet.

        Args:
            pool: The workers, of which more are started where a case is run again.
        """
        self._pool = pool
        self.gaps: list[str] = []
        self._of_reference = 0

    def begin(self) -> None:
        """Forget the deaths of the run before."""
        self.gaps.clear()
        self._of_reference = 0

    def settle(self, worker: Worker, piece: Piece, case: str, death: Death) -> None:
        """Find out what the end of a process says of a case: it is run again in a fresh process, alone."""
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
        elif death.side == "candidate" and self._repeats(worker, piece, case):
            count = sum(len(done.journal) for done in worker.history)
            piece.journal[case] = death_outcome(
                case,
                death,
                f"{death.description} in a process that ran {count} cases before it, and again in another one; alone it does not",
            )
        elif death.outside:
            self._pool.ended_outside()
            if outcome is not None:
                piece.journal[case] = outcome
        else:
            side = death.side or "original"
            self._gap(
                piece, case, f"not judged: the process that ran the {side} {death.description} once, and not again"
            )

    def _repeats(self, worker: Worker, piece: Piece, case: str) -> bool:
        """Whether a process that runs what the dead one ran dies of it as well."""
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
                )
                self._pool.wait(asked)
                if asked.died:
                    return death_of(asked).side == "candidate"
            return False
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
        piece.journal[case] = CaseOutcome(case, judged=False, notes=(reason,))
        self.gaps.append(f"{piece.check} on {case}: {reason}")


def death_outcome(case: str, death: Death, description: str) -> CaseOutcome:
    """A case of which the candidate ends its process."""
    return CaseOutcome(
        case,
        where="the process",
        failed=f"the candidate {description}",
        ratio=math.inf,
        origin=f"process {death.how}",
        died=death.how,
    )
