"""The pieces of a run, which workers share: who is at what, and what becomes of a case whose process dies."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from equivcheck.report.outcomes import CaseOutcome, Searched
from equivcheck.supervisor.deaths import Death, confirmed, death_of
from equivcheck.supervisor.pool import Pool, result_of
from equivcheck.supervisor.workers import Asked, Worker

__all__ = ["Piece", "Pieces"]

_MOST_DEATHS = 6  # that are spent on making one counterexample small
_MOST_OF_REFERENCE = 3  # deaths of the original in one class, after which it is left
_MOST_IN_ALL = 9  # in a run, after which one is enough to leave a class
_SLOW = (
    0.5  # of the time limit: what takes so long alone is slow, and what takes less did not answer for another reason
)


@dataclass(eq=False)
class Piece:
    """One class of a check's cases: what has come of it so far, and whether it is done."""

    check: str
    number: int
    searched: Searched = field(default_factory=Searched)
    journal: dict[str, CaseOutcome] = field(default_factory=dict)
    shrinking: bool = False  # deaths may be spent on it
    deaths: int = 0  # while it is made small
    unconfirmed: set[str] = field(default_factory=set)  # cases of which a process died once
    of_reference: int = 0
    done: bool = False
    dropped: bool = False  # nobody wants it any more


class Pieces:
    """The pieces of a run, and the workers that do them.

    Attributes:
        gaps: In words, what could not be judged for deaths that are not the candidate's.
    """

    def __init__(self, pool: Pool) -> None:
        """Have none as yet."""
        self.pool = pool
        self.gaps: list[str] = []
        self._of_reference = 0
        self._heard: Callable[[str], None] = lambda check: None
        self._queue: deque[Piece] = deque()
        self._running: dict[Worker, tuple[Piece, Asked]] = {}

    def _take(self, worker: Worker, outcome: CaseOutcome) -> None:
        if worker not in self._running:
            return
        piece = self._running[worker][0]
        piece.journal[outcome.case] = outcome
        piece.searched.add(outcome)
        if outcome.failed is not None:
            piece.searched.minimal = outcome.case
            worker.shrinking = True
        if not piece.dropped:
            self._heard(piece.check)

    def begin(self, pieces: Sequence[Piece], heard: Callable[[str], None]) -> None:
        """Be given all pieces of a run; `heard` is given the check of each case that is done."""
        self._queue = deque(pieces)
        self._running.clear()
        self.gaps.clear()
        self._of_reference = 0
        self._heard, self.pool.hear = heard, self._take

    def finish(self, pieces: Sequence[Piece]) -> None:
        """Return when these pieces are done, up to the first that fails; the rest of them is dropped."""
        while True:
            for at, piece in enumerate(pieces):
                if not piece.done:
                    break
                if piece.searched.minimal is not None:
                    for other in pieces[at + 1 :]:
                        other.dropped = True
                    return
            else:
                return
            self._advance()

    def _advance(self) -> None:
        """Hand out pieces, wait for something to happen, and deal with the ends of processes."""
        self.pool.fill()
        for worker in self.pool.workers:
            if worker.idle and worker not in self._running:
                piece = self._next()
                if piece is None:
                    break
                self._hand(worker, piece)
        self.pool.step()
        for worker, (piece, asked) in list(self._running.items()):
            if asked.done:
                del self._running[worker]
                self._ended(worker, piece, asked)

    def _next(self) -> Piece | None:
        while self._queue:
            piece = self._queue.popleft()
            if not piece.dropped and not piece.done:
                return piece
        return None

    def _hand(self, worker: Worker, piece: Piece) -> None:
        first = next((outcome for outcome in piece.journal.values() if outcome.failed is not None), None)
        # of a process that died nothing is made small until all checks have run, and then of one of them
        unwanted = first is not None and bool(first.died) and not piece.shrinking
        shrinks = 0 if unwanted or piece.deaths >= _MOST_DEATHS else math.inf
        piece.searched = Searched(seconds=piece.searched.seconds)
        worker.history.append(piece)
        asked = worker.ask(
            "piece",
            check=piece.check,
            number=piece.number,
            known=[outcome.plain() for outcome in piece.journal.values()],
            shrinks=shrinks,
            seconds=min(1e9, self.pool.left_s),
        )
        worker.check, worker.shrinking = piece.check, False
        self._running[worker] = piece, asked

    def _ended(self, worker: Worker, piece: Piece, asked: Asked) -> None:
        if not asked.died:
            answer = result_of(asked)
            piece.searched.minimal = answer["minimal"]
            piece.searched.stopped = piece.searched.stopped or answer["stopped"]
            piece.searched.seconds += answer["seconds"]
            piece.done = True
            return
        if worker in self.pool.workers:
            self.pool.workers.remove(worker)
        if piece.dropped:
            piece.done = True
            return
        death = death_of(asked)
        case = worker.case
        if death.importing or not case:  # between cases: nothing of it is lost
            self.pool.ended_outside()
        elif piece.searched.failed and death.side == "candidate":
            # while a counterexample is made small: the smallest one is confirmed at the end
            piece.deaths += 1
            piece.unconfirmed.add(case)
            piece.journal[case] = _fails(case, death, death.told)
        else:
            self._settle(worker, piece, case, death)
        self._queue.appendleft(piece)

    def _settle(self, worker: Worker, piece: Piece, case: str, death: Death) -> None:
        """Find out what the end of a process says of a case: it is run again in a fresh process, alone."""
        if self.pool.hangs and death.how == "hang":
            piece.journal[case] = _fails(case, death, f"{death.told}, as on another case in a fresh process, too")
            return
        if self._of_reference >= _MOST_IN_ALL and death.side != "candidate":
            piece.of_reference = _MOST_OF_REFERENCE
            self._not_judged(piece, case, death, death.side)
            return
        alone = self.pool.alone(piece.check, case, worker.work, linger=death.how == "fork")
        if alone.died:
            second = death_of(alone)
            side = death.side if death.side == second.side else second.side
            if side == "candidate":
                self.pool.hangs = self.pool.hangs or second.how == "hang"
                piece.journal[case] = _fails(case, death, confirmed(death, second))
            else:
                self._not_judged(piece, case, second, side)
            return
        outcome = CaseOutcome.of(alone.answer) if alone.error is None else None
        if death.how == "hang" and alone.seconds > _SLOW * self.pool.times.limit_s(worker.work, piece.check):
            told = f"{case} took {alone.seconds:.0f} s: raise --case-seconds"
            self._gap(piece, case, f"not judged: {told}")
        elif death.side == "candidate" and self._repeats(worker, piece, case):
            count = sum(len(done.journal) for done in worker.history)
            piece.journal[case] = _fails(
                case,
                death,
                f"{death.told} in a process that ran {count} cases before it, and again in another one; alone it does not",
            )
        elif death.outside:
            self.pool.ended_outside()
            if outcome is not None:
                piece.journal[case] = outcome
        else:
            side = death.side or "original"
            self._gap(piece, case, f"not judged: the process that ran the {side} {death.told} once, and not again")

    def _repeats(self, worker: Worker, piece: Piece, case: str) -> bool:
        """Whether a process that runs what the dead one ran dies of it as well."""
        other = self.pool.start()
        try:
            for done in worker.history:
                known = {} if done is not piece else {k: o for k, o in done.journal.items() if o.died}
                asked = other.ask(
                    "piece",
                    check=done.check,
                    number=done.number,
                    known=[outcome.plain() for outcome in known.values()],
                    shrinks=0,
                    seconds=min(1e9, self.pool.left_s),
                )
                self.pool.wait(asked)
                if asked.died:
                    return death_of(asked).side == "candidate"
            return False
        finally:
            self.pool.leave(other)

    def _not_judged(self, piece: Piece, case: str, death: Death, side: str) -> None:
        piece.of_reference += 1
        self._of_reference += 1
        who = "the original" if side == "reference" else "equivcheck's own run of the original"
        self._gap(piece, case, f"not judged where {who} {death.told}")
        if piece.of_reference >= _MOST_OF_REFERENCE:
            piece.searched, piece.done = Searched(seconds=piece.searched.seconds), True
            for outcome in piece.journal.values():
                piece.searched.add(outcome)

    def _gap(self, piece: Piece, case: str, told: str) -> None:
        piece.journal[case] = CaseOutcome(case, judged=False, notes=(told,))
        self.gaps.append(f"{piece.check} on {case}: {told}")

    def settle(self) -> None:
        """Wait for pieces that nobody wants any more."""
        self._queue.clear()
        while self._running:
            self._advance()

    def make_small(self, piece: Piece, *, spend: bool) -> None:
        """See that a piece ends with a counterexample that is confirmed.

        Args:
            piece: A piece that fails.
            spend: Whether deaths may be spent on making one smaller of which the process died.
        """
        first = next(iter(piece.searched.failed.values()))
        if first.died and spend:
            piece.shrinking, piece.done = True, False
            self._queue.appendleft(piece)
            while not piece.done:
                self._advance()
        while (smallest := piece.searched.minimal) in piece.unconfirmed and smallest is not None:
            piece.unconfirmed.discard(smallest)
            if self.pool.alone(piece.check, smallest).died:
                seen = piece.searched.failed[smallest]
                piece.searched.failed[smallest] = replace(seen, failed=f"{seen.failed}, and again in a fresh process")
            else:  # what was seen before it is the counterexample
                del piece.searched.failed[smallest]
                piece.searched.minimal = list(piece.searched.failed)[-1]


def _fails(case: str, death: Death, told: str) -> CaseOutcome:
    """A case of which the candidate ends its process."""
    return CaseOutcome(
        case,
        where="the process",
        failed=f"the candidate {told}",
        ratio=math.inf,
        origin=f"process {death.how}",
        died=death.how,
    )
