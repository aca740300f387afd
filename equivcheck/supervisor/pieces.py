"""The pieces of a run, which workers share: the piece of each worker, and the next one."""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from equivcheck.report.outcomes import CaseOutcome, Searched
from equivcheck.supervisor.confirmation import Confirmation, death_outcome
from equivcheck.supervisor.deaths import death_of
from equivcheck.supervisor.piece import Piece
from equivcheck.supervisor.pool import Pool
from equivcheck.supervisor.workers import Asked, Worker, result_of
from equivcheck.supervisor.workers_interface import OnCase

__all__ = ["Pieces"]

_MOST_DEATHS = 6  # processes that one counterexample may cost while it is made small


class Pieces:
    """The pieces of a run, and the workers that do them.

    Attributes:
        gaps: In words, the cases that were not judged because of deaths that are not the candidate's.
    """

    def __init__(self, pool: Pool) -> None:
        """Have no pieces yet."""
        self.pool = pool
        self._confirmation = Confirmation(pool)
        self.gaps = self._confirmation.gaps
        self._on_case: OnCase = lambda check, outcome: None
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
            self._on_case(piece.check, outcome)

    def begin(self, pieces: Sequence[Piece], on_case: OnCase) -> None:
        """Take the first pieces of a run; `on_case` is called with the check and outcome of each case that is done."""
        self._queue = deque(pieces)
        self._running.clear()
        self._confirmation.begin()
        self._on_case, self.pool.hear = on_case, self._take

    def add(self, pieces: Sequence[Piece]) -> None:
        """Take more pieces, before those that wait."""
        self._queue.extendleft(reversed(pieces))

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
        """Hand out pieces, wait for messages, and deal with the ends of processes."""
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
        # a case that ends its process is made small only after all checks have run, and for one check only
        unwanted = (
            piece.most is not None
            or piece.case is not None
            or (first is not None and bool(first.died) and not piece.shrinking)
        )
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
            most=piece.most,
            case=piece.case,
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
        if death.importing or not case:  # between cases: no outcome is lost
            self.pool.ended_outside()
        elif piece.searched.failed and death.side == "candidate":
            # a counterexample is being made small: only the smallest one is confirmed, at the end
            piece.deaths += 1
            piece.unconfirmed.add(case)
            piece.journal[case] = death_outcome(case, death, death.description)
        else:
            self._confirmation.settle(worker, piece, case, death)
        self._queue.appendleft(piece)

    def settle(self) -> None:
        """Wait for the running pieces, and drop the waiting ones."""
        self._queue.clear()
        while self._running:
            self._advance()

    def make_small(self, piece: Piece, *, spend: bool) -> None:
        """Give a piece a counterexample that is confirmed.

        Args:
            piece: A piece that fails.
            spend: Whether processes may die while a counterexample that ends its process is made smaller.
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
            else:  # the failing case before it is the counterexample
                del piece.searched.failed[smallest]
                piece.searched.minimal = list(piece.searched.failed)[-1]
