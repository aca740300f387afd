"""Side effects of foreign code, looked for after a run: on the original, torch, the judging code and the process."""

import array
import base64
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from equivcheck.supervisor.deaths import death_of
from equivcheck.supervisor.pool import Pool
from equivcheck.supervisor.workers import Asked, Worker

if TYPE_CHECKING:
    from equivcheck.supervisor.sealed import NamedPair

__all__ = ["LookBack"]

_END_S = 30.0
_NOISE = 8.0  # times the difference between two runs of the original alone


class LookBack:
    """Compares the original with itself in a process without the candidate, and looks for replaced functions."""

    def __init__(self, pool: Pool, pair: "NamedPair", loaded: Mapping[str, Any], folder: str) -> None:
        """Ask nothing yet.

        Args:
            pool: The workers.
            pair: The pair.
            loaded: The answer to the question `load`: the kind of its original, device, facts about functions.
            folder: The folder that workers begin in.
        """
        self._pool, self._pair, self._loaded, self._folder = pool, pair, loaded, folder
        self._cases: list[str] = []
        self._original_alone: _Alone | None = None

    def begin(self, cases: Sequence[str]) -> None:
        """Start the original on these cases in a worker that never imports the candidate; do not wait for it."""
        if self._original_alone is None:
            self._cases = list(cases)
            self._original_alone = self._alone()

    def _alone(self) -> "_Alone":
        pool, pair = self._pool, self._pair
        facts = self._loaded["facts"]
        asks = [(name, dict(arguments)) for name, arguments in pool.context if name == "clock"]
        if pair.setup is not None:
            asks.append(("setup", {"spec": pair.setup}))
        loading: dict[str, Any] = {
            "reference": pair.reference,
            "candidate": pair.reference,
            "kind": self._loaded["original_kind"],
            "device": self._loaded["device"],
            "adaptation": {name: value for name, value in pair.adaptation.items() if name != "transfer"},
            "allowed": facts and facts["options"],
            "domain": pair.domain,
        }
        asks.append(("load", loading))
        if facts:
            asks.append(("take", {"scale_optional": facts["scale_optional"], "learns_mask": facts["learns_mask"]}))
        asks += [("original", {"cases": self._cases}), ("folder", {})]
        worker = pool.start([])
        return _Alone(worker, [worker.ask(name, **arguments) for name, arguments in asks])

    def findings(self, *, last: bool) -> tuple[list[str], list[str]]:
        """Findings that make the comparison void, and notes: on the original, torch, the judging code and the process.

        The original is compared with itself in a worker that never imports the candidate: its results on some cases,
        the working folder that it leaves, and, if this is the `last` run of these workers, the end of the process.
        """
        pool = self._pool
        pool.fill()
        alone = self._original_alone
        assert alone is not None, "`begin` comes before `findings`"
        oldest = max(pool.workers, key=lambda w: sum(len(piece.journal) for piece in w.history))
        results = oldest.ask("original", cases=self._cases)
        asks = {
            name: [worker.ask(name) for worker in pool.workers if worker.alive]
            for name in ("judging", "replaced", "folder")
        }
        pool.wait(results, *alone.asked, *(asked for some in asks.values() for asked in some))
        answers = {
            name: [asked.answer for asked in some if not asked.died and asked.error is None]
            for name, some in asks.items()
        }
        alone.take()
        findings = [f"what judges was changed: {change}" for change in _once(answers["judging"])]
        replaced = _once([one["original"] for one in answers["replaced"]])
        names = [*replaced, *_once([one["torch"] for one in answers["replaced"]])]
        notes = []
        other = self._other_original(results, alone, named=bool(names))
        if other:
            findings.append(f"the candidate replaced {', '.join(names)}: {other}" if names else other)
        elif names:
            notes.append(f"the candidate replaced {', '.join(names)}, which changes no result of the original")
        if alone.error:
            notes.append(f"the original could not be looked at without the candidate: {alone.error}")
        elif results.died or results.error is not None:
            why = death_of(results).description if results.died else str(results.error and results.error[1])
            notes.append(f"the original could not be looked at after the run: {why}")
        moved = [folder for folder in answers["folder"] if folder != self._folder]
        if moved and alone.folder == self._folder:
            findings.append(
                f"the candidate changes the working folder of the process to {moved[0] or 'one that is gone'}"
            )
        if not last:
            pool.leave(alone.worker)
            return findings, notes
        (end, done), (end_alone, _) = self._ends(oldest, alone.worker)
        if end and not end_alone:
            message = f"{end}; with the original alone it ends as it should"
            (notes if done else findings).append(message)  # after its handlers a library may break the process
        return findings, notes

    def _other_original(self, results: Asked, alone: "_Alone", *, named: bool) -> str:
        """In words, how the original's results differ from those that it has alone; empty if they do not.

        If nothing is known to be replaced, a fresh process that has imported both sides must differ, too.
        """
        if alone.error or results.died or results.error is not None:
            return ""
        apart = _apart(results.answer, alone.results)
        if apart is None or (not named and self._same_in_a_fresh_process(alone)):
            return ""
        again = self._alone()
        self._pool.wait(*again.asked)
        again.take()
        self._pool.leave(again.worker)
        noise = None if again.error else _apart(alone.results, again.results)
        (case, name), size = apart
        if noise is not None and size <= _NOISE * noise[1]:
            return ""
        where = f"{name} of the original on {self._cases[case]}"
        return f"{where} is not what it is where the original alone is imported (apart by {size:.3g})"

    def _same_in_a_fresh_process(self, alone: "_Alone") -> bool:
        worker = self._pool.start()
        asked = worker.ask("original", cases=self._cases)
        self._pool.wait(asked)
        self._pool.leave(worker)
        return asked.died or asked.error is not None or _apart(asked.answer, alone.results) is None

    def _ends(self, *workers: Worker) -> list[tuple[str, bool]]:
        """Let processes end as any program does.

        Returns:
            For each, in words, an abnormal end, and whether all of its handlers of atexit had run by then.
        """
        pool = self._pool
        limit = min(_END_S, pool.times.limit_s(0.0))
        began = time.monotonic()
        for worker in workers:
            if worker in pool.workers:
                pool.workers.remove(worker)
            worker.limit_s = limit
            worker.ask("end")
        while any(worker.alive for worker in workers) and time.monotonic() - began < limit:
            pool.step()
        return [(self._end(worker, limit), worker.ended) for worker in workers]

    def _end(self, worker: Worker, limit: float) -> str:
        if worker.alive:
            self._pool.leave(worker)
            if worker.ended:
                return f"the process does not end within {limit:g} s of its last handler of atexit"
            return f"the process does not end within {limit:g} s, as a thread of it goes on or a handler of atexit"
        if worker.status == 0 and worker.ended:
            return ""
        how = f"with status {worker.status}" if (worker.status or 0) >= 0 else f"by signal {-(worker.status or 0)}"
        when = "after its handlers of atexit" if worker.ended else "before all handlers of atexit have run"
        return f"the process ends {how} {when}"


@dataclass
class _Alone:
    """The original in a process of its own: the questions, and their answers."""

    worker: Worker
    asked: list[Asked]
    results: list[dict[str, Any]] = field(default_factory=list)
    folder: str = ""
    error: str = ""

    def take(self) -> None:
        """Read the answers, which have arrived."""
        for one in self.asked:
            if one.died:
                self.error = self.error or f"its process {death_of(one).description}"
            elif one.error is not None:
                self.error = self.error or one.error[1]
            elif one.name == "original":
                self.results = one.answer
            elif one.name == "folder":
                self.folder = one.answer


def _once(lists: Sequence[Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(text for some in lists for text in some))


def _apart(
    results: Sequence[Mapping[str, str]], others: Sequence[Mapping[str, str]]
) -> tuple[tuple[int, str], float] | None:
    """The case and tensor in which two sets of results differ most, and by how much; None if all bits are equal."""
    worst: tuple[tuple[int, str], float] | None = None
    for at, (one, other) in enumerate(zip(results, others, strict=True)):
        for name in dict.fromkeys((*one, *other)):
            a, b = one.get(name), other.get(name)
            if a == b:
                continue
            size = math.inf
            with suppress(ValueError):
                if a is not None and b is not None and name != "raises":
                    size = _distance(base64.b64decode(a), base64.b64decode(b))
            if worst is None or size > worst[1]:
                worst = (at, name), size
    return worst


def _distance(one: bytes, other: bytes) -> float:
    if len(one) != len(other):
        return math.inf
    pairs = zip(array.array("d", one), array.array("d", other), strict=True)
    worst = 0.0
    for a, b in pairs:
        if a != b and not (math.isnan(a) and math.isnan(b)):
            apart = abs(a - b)
            worst = max(worst, math.inf if math.isnan(apart) else apart)
    return worst
