"""The workers of a run as processes of their own: their number, first questions, and shares of the planted faults."""

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from equivcheck.report.time_spent import TimeSpent
from equivcheck.supervisor.deaths import Lost, death_of
from equivcheck.supervisor.gpus import gpus_from
from equivcheck.supervisor.limits import free_bytes
from equivcheck.supervisor.look_back import LookBack
from equivcheck.supervisor.nursery import Nursery
from equivcheck.supervisor.piece import Piece
from equivcheck.supervisor.pieces import Pieces
from equivcheck.supervisor.pool import CONFIRMING, Pool
from equivcheck.supervisor.ray_task import cores_of_run
from equivcheck.supervisor.request import Request
from equivcheck.supervisor.workers import Asked, Worker, result_of
from equivcheck.supervisor.workers_interface import OnCase

__all__ = ["NamedPair", "Sealed", "where_it_begins"]

_GIB = 2**30
_PER_JOB_BYTES = 4 * _GIB  # of a GPU's memory: a CUDA context, and the largest case with its truth
_MOST_ON_CPU, _MOST_ON_CUDA = 8, 14
_WORTH_SHARING = 300  # cases


@dataclass(frozen=True)
class NamedPair:
    """A pair by its import strings, with the import strings of the user's functions and its domain."""

    reference: str
    candidate: str
    kind: str = "auto"
    device: str = "auto"
    adaptation: Mapping[str, str] = field(default_factory=dict)
    setup: str | None = None
    domain: str | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        """A key that is equal for pairs with the same fields."""
        user_functions = tuple(sorted(self.adaptation.items()))
        return self.reference, self.candidate, self.kind, self.device, user_functions, self.setup, self.domain


def where_it_begins() -> dict[str, Any]:
    """The state that a worker begins with: the folder, environment, `sys.path`, arguments, and number of threads."""
    try:
        folder = os.getcwd()
    except OSError:
        folder = os.sep
    cores = cores_of_run()
    return {
        "folder": folder,
        "path": [os.path.abspath(entry) if entry else folder for entry in sys.path if isinstance(entry, str)],
        "environment": dict(os.environ),
        "arguments": list(sys.argv),
        "threads": max(1, cores // min(_MOST_ON_CPU, cores)),
    }


class Sealed:
    """The workers of one pair."""

    sealed = True

    def __init__(
        self,
        pair: NamedPair,
        request: Request,
        nursery: Nursery,
        first: Mapping[str, Any],
    ) -> None:
        """Start nothing yet.

        Args:
            pair: The pair to judge.
            request: The request of the first run.
            nursery: The process that workers are forked from.
            first: The state that they begin with.
        """
        self._pair, self._request, self._first = pair, request, first
        memory = free_bytes() if request.worker_memory is None else request.worker_memory
        self.pool = Pool(nursery, first, case_seconds=request.case_seconds, memory_bytes=memory)
        self._pieces = Pieces(self.pool)
        self._loaded: Mapping[str, Any] | None = None
        self._back: LookBack | None = None

    def again(self, request: Request, until: float, stopping: Callable[[], bool]) -> None:
        """Begin a run with the present workers; those of a `shared` request serve later runs, too."""
        self._request = request
        self.pool.again(until, stopping)
        before = any(name == "clock" for name, _ in self.pool.context)
        if self._loaded is not None and (before or request.profile_run):
            self.pool.add_context("clock", wanted=request.profile_run)

    @property
    def gaps(self) -> list[str]:
        """In words, the cases that were not judged because of deaths that are not the candidate's."""
        return self._pieces.gaps

    def open(self) -> Mapping[str, Any]:
        """Load the pair in the first worker, then in the others; its kind, names and device.

        Raises:
            Lost: Two processes died of it.
            UsageError: The pair cannot be judged.
        """
        pool, pair = self.pool, self._pair
        if self._loaded is not None:
            return self._loaded
        of_plan = self._request.of_plan
        kept = {name: of_plan[name] for name in ("checks", "profile", "dtypes")}
        if self._request.profile_run:
            pool.context.append(("clock", {"wanted": True}))
        pool.workers = [pool.start()]
        devices = pool.answer("devices", pool.workers[0], device=pair.device, **kept)
        pool.gpus = gpus_from(devices, pair.device, self._first["environment"])
        pool.workers[0].gpu = pool.gpus.least_used(())
        pool.jobs = self._request.jobs or self._suiting(devices)
        loading = {
            "reference": pair.reference,
            "candidate": pair.candidate,
            "kind": pair.kind,
            "device": devices["device"],
            "adaptation": dict(pair.adaptation),
            "share": pool.jobs,
            "domain": pair.domain,
        }
        pool.context.append(("look", {}))
        if pair.setup is not None:
            pool.context.append(("setup", {"spec": pair.setup}))
        pool.context.append(("load", loading))
        asks = [pool.workers[0].ask(name, **arguments) for name, arguments in pool.context]
        pool.fill()
        pool.wait(*asks)
        if asks[-1].died:
            asks = self._again(asks[-1])
        for asked in asks:
            answer = result_of(asked)
        pool.loading = len(pool.context)
        self._loaded = answer
        loaded: Mapping[str, Any] = answer
        return loaded

    def _again(self, asked: Asked) -> list[Asked]:
        """Load the pair in a fresh process after one has died of it."""
        death = death_of(asked)
        if death.importing and not death.outside:
            raise Lost(death, death)
        worker = self.pool.start([])
        worker.limit_s = CONFIRMING * self.pool.times.limit_s(0.0)
        asks = [worker.ask(name, **arguments) for name, arguments in self.pool.context]
        self.pool.wait(*asks)
        worker.limit_s = None
        if asks[-1].died:
            raise Lost(death, death_of(asks[-1]))
        self.pool.workers.append(worker)
        return asks

    def _suiting(self, devices: Mapping[str, Any]) -> int:
        """The number of processes that suits the machine: one per core, and on a GPU no more than fit its memory."""
        if devices["cases"] < _WORTH_SHARING:
            return 1
        cores = cores_of_run()
        if devices["free"] is None:
            return min(_MOST_ON_CPU, cores)
        # each waits for the GPU most of the time: more than one core for each gains nothing
        of_each = min(_MOST_ON_CUDA, int(devices["free"]) // _PER_JOB_BYTES)
        return max(1, min(cores - 2, max(1, len(self.pool.gpus.words)) * of_each))

    def answer(self, name: str, **arguments: Any) -> Any:
        """The answer of an idle worker to one question."""
        return self.pool.answer(name, **arguments)

    def ready(self, **arguments: Any) -> None:
        """Prepare every worker for the checks of the plan."""
        self.pool.add_context("prepare", **arguments)

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Inside, the limits of time that cases have shown are those of the cases inside alone."""
        pool = self.pool
        times, hangs = replace(pool.times), pool.hangs
        try:
            yield
        finally:
            pool.times, pool.hangs = times, hangs

    def begin(self, pieces: Sequence[Piece], on_case: OnCase) -> None:
        """Take the first pieces; `on_case` is called with the check and outcome of each case that is done."""
        self._pieces.begin(pieces, on_case)

    def add(self, pieces: Sequence[Piece]) -> None:
        """Take more pieces, before those that wait."""
        self._pieces.add(pieces)

    def finish(self, pieces: Sequence[Piece]) -> None:
        """Wait until these are done, up to the first that fails."""
        self._pieces.finish(pieces)

    def make_small(self, piece: Piece, *, spend: bool) -> None:
        """Give a piece a counterexample that is confirmed."""
        self._pieces.make_small(piece, spend=spend)

    def ran(self, checks: Mapping[str, Mapping[str, Any]]) -> None:
        """Send every worker the cases that the checks judged."""
        self._pieces.settle()
        self.pool.add_context("ran", checks=checks)

    def detections(
        self, faults: Sequence[str], until: float, on_progress: Callable[[int], None]
    ) -> Iterator[str | None]:
        """Yield the first detection of each fault: `""` if there is none, None if that is not known."""
        pool = self.pool
        detected: dict[int, str | None] = {}
        running: dict[Worker, tuple[int, Asked]] = {}
        left = list(enumerate(faults))[::-1]
        tried: dict[int, int] = {}
        for at in range(len(faults)):
            while at not in detected:
                pool.fill()
                for worker in pool.workers:
                    if left and worker.alive and worker not in running:
                        number, fault = left.pop()
                        seconds = min(1e9, max(0.0, until - time.monotonic()))
                        running[worker] = number, worker.ask("detect", fault=fault, seconds=seconds)
                pool.step()
                for worker, (number, asked) in list(running.items()):
                    if not asked.done:
                        continue
                    del running[worker]
                    if not asked.died:
                        detected[number] = result_of(asked)
                    elif tried.setdefault(number, 0):
                        detected[number] = None
                    else:
                        tried[number] += 1
                        left.append((number, faults[number]))
                    if len(detected) < len(faults):
                        on_progress(len(detected))
            yield detected[at]
        on_progress(len(faults))

    def seen(self) -> list[Mapping[str, Any]]:
        """The files and hosts that foreign code has used in each worker."""
        asks = [worker.ask("seen") for worker in self.pool.workers if worker.alive]
        self.pool.wait(*asks)
        return [asked.answer for asked in asks if asked.answer]

    def look_at_original(self, cases: Sequence[str]) -> None:
        """Start the original on these cases in a worker that never imports the candidate; do not wait for it."""
        if self._back is None:
            assert self._loaded is not None, "the pair is loaded first"
            self._back = LookBack(self.pool, self._pair, self._loaded, self._first["folder"])
        self._back.begin(cases)

    def findings(self) -> tuple[list[str], list[str]]:
        """Findings that make the comparison void, and notes."""
        assert self._back is not None, "`look_at_original` comes before `findings`"
        return self._back.findings(last=not self._request.shared)

    def time_spent(self) -> TimeSpent:
        """The time of all workers of the run until their last messages."""
        return self.pool.account.so_far()

    def printed(self) -> str:
        """The output of the pair, marked as such."""
        return self.pool.nursery.printed()

    def close(self) -> None:
        """End all workers."""
        self.pool.close()
