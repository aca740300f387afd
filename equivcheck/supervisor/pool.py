"""The workers of one pair: their first questions, their time limits, and the limit of their memory."""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from equivcheck.errors import UsageError
from equivcheck.report.outcomes import CaseOutcome
from equivcheck.report.time_spent import Account
from equivcheck.supervisor.deaths import Death, Lost, death_of
from equivcheck.supervisor.gpus import Gpus
from equivcheck.supervisor.interrupts import Interrupted
from equivcheck.supervisor.limits import CaseTimes
from equivcheck.supervisor.nursery import Nursery
from equivcheck.supervisor.workers import Asked, Worker, result_of

__all__ = ["CONFIRMING", "Alone", "Pool"]

CONFIRMING = 3.0
"""Times the limit of a case, for a fresh process that confirms a hang."""

_STEP_S = 0.25
_IMPORT_S = 120.0
_LEAST_IMPORT_S = 10.0
_MOST_OUTSIDE = 40  # processes that may be ended from outside in one run
_LINGER_S = 0.5
_GRACE_S = 5.0  # after the time of the run, for the cases that are being run


@dataclass
class Alone(Asked):
    """A case that was run in a fresh process, and its duration."""

    seconds: float = 0.0


class Pool:
    """The workers of one pair.

    Attributes:
        jobs: The number of workers.
        context: The questions that each worker is asked when it starts.
        loading: The number of these that load the pair; the others are of one run.
        hangs: Whether a hang was confirmed: other cases then have less time.
        hear: A function that is given the worker and the outcome of each case.
        account: The time that workers have reported.
        gpus: The GPUs that workers share out.
    """

    def __init__(
        self,
        nursery: Nursery,
        first: Mapping[str, Any],
        *,
        case_seconds: float | None = None,
        memory_bytes: float = math.inf,
    ) -> None:
        """Start no worker yet.

        Args:
            nursery: The process that workers are forked from.
            first: The folder, environment, `sys.path`, arguments and threads that a worker begins with.
            case_seconds: The time limit of a case, if the user has set one.
            memory_bytes: The memory that one worker may use.
        """
        self.nursery, self._first, self.jobs = nursery, dict(first), 1
        self.context: list[tuple[str, Mapping[str, Any]]] = []
        self.loading = 0
        self.times, self._memory_bytes = CaseTimes(case_seconds), memory_bytes
        self.until = math.inf
        self._stopping: Callable[[], bool] = lambda: False
        self.workers: list[Worker] = []
        self.hangs = False
        self.hear: Callable[[Worker, CaseOutcome], None] = lambda worker, outcome: None
        self.account = Account()
        self.gpus = Gpus()
        self._started: list[Nursery] = []
        self._outside = 0
        self._looked_s = 0.0

    def again(self, until: float, stopping: Callable[[], bool]) -> None:
        """Begin a run with the present workers, and forget all questions but those that load the pair.

        Args:
            until: The time of `time.monotonic` at which the run ends.
            stopping: A function that returns whether the run shall end now.
        """
        self.until, self._stopping = until, stopping
        self.account = Account()
        self.context = self.context[: self.loading]

    @property
    def left_s(self) -> float:
        """The time that is left for the run."""
        return max(0.0, self.until - time.monotonic())

    def start(self, context: Sequence[tuple[str, Mapping[str, Any]]] | None = None) -> Worker:
        """Start a worker and ask it the first questions of each, or those of `context`."""
        gpu = self.gpus.least_used(worker.gpu for worker in self.nursery.workers)
        first = {**self._first, "environment": {**self._first["environment"], **self.gpus.environment(gpu)}}
        try:
            worker = self._nursery().start(self._take, first)
        except ConnectionError:  # it was ended just now, from outside
            worker = self._nursery().start(self._take, first)
        worker.gpu = gpu
        for name, arguments in self.context if context is None else context:
            worker.ask(name, **arguments)
        return worker

    def _nursery(self) -> Nursery:
        """The process that workers are forked from; a new one if it was ended."""
        if self.nursery.dead:
            self.ended_outside()
            self.nursery = Nursery(streams=self.nursery.streams)
            self._started.append(self.nursery)
        return self.nursery

    def add_context(self, name: str, **arguments: Any) -> None:
        """Ask every worker this, and those that are started later."""
        self.context.append((name, arguments))
        for worker in self.workers:
            worker.ask(name, **arguments)

    def fill(self) -> None:
        """Start as many workers as there should be."""
        for worker in [worker for worker in self.workers if not worker.alive]:
            self.workers.remove(worker)
            self.ended_outside()  # other ends are handled by the caller that gave them work
        while len(self.workers) < self.jobs:
            self.workers.append(self.start())

    def answer(self, name: str, worker: Worker | None = None, **arguments: Any) -> Any:
        """The answer of an idle worker, or of this one; after a death the question is asked again.

        Args:
            name: The question.
            worker: The worker to ask; None for an idle one.
            arguments: The arguments of the question, as plain data.

        Raises:
            Lost: Two processes died of it.
            UsageError: The worker raised one.
            ToolError: The worker raised another error.
        """
        deaths: list[Death] = []
        for again in (False, True):
            if worker is None or not worker.alive:
                self.fill()
                worker = next((w for w in self.workers if w.idle), self.workers[0])
            asked = worker.ask(name, **arguments)
            if again:
                worker.limit_s = CONFIRMING * self.times.limit_s(0.0)
            self.wait(asked)
            worker.limit_s = None
            if not asked.died:
                return result_of(asked)
            deaths.append(death_of(asked))
            if again:
                raise Lost(*deaths)
        raise AssertionError("a second death ends it")

    def wait(self, *asked: Asked) -> None:
        """Wait until all of these are answered, or their processes have ended."""
        while not all(one.done for one in asked):
            self.step()

    def leave(self, worker: Worker) -> None:
        """End a worker that is not needed any more."""
        self.nursery.end(worker, "")
        if worker in self.workers:
            self.workers.remove(worker)

    def close(self) -> None:
        """End all workers."""
        for worker in list(self.workers):
            self.leave(worker)
        for nursery in self._started:
            nursery.close()

    def step(self) -> None:
        """Handle the messages that arrive, and end workers beyond their limits."""
        if self._stopping():
            raise Interrupted
        now = time.monotonic()
        if now > self.until + _GRACE_S:
            raise Interrupted
        self._nursery().step(_STEP_S)
        if now - self._looked_s >= _STEP_S:
            self._looked_s = now
            for worker in self.nursery.workers:
                self._look(worker)

    def _look(self, worker: Worker) -> None:
        """End a worker that does not answer in time, or uses too much memory."""
        if worker.current is None or worker.process is None:
            return
        limit = self._limit_s(worker)
        if time.monotonic() - worker.since > limit:
            self.nursery.end(worker, "hang", f"did not answer within {limit:g} s")
        elif self._memory_bytes < math.inf and worker.resident_bytes() > self._memory_bytes:
            self._too_large(worker)

    def _too_large(self, worker: Worker) -> None:
        self.nursery.end(worker, "memory", f"used more than {self._memory_bytes / 2**30:.3g} GiB of memory")

    def _limit_s(self, worker: Worker) -> float:
        if worker.limit_s is not None:
            return worker.limit_s
        if (
            worker.current is not None
            and worker.current.name in ("load", "setup", "kind")
            and worker.beacon.read().step
        ):
            return _IMPORT_S if self.times.given_s is None else max(_LEAST_IMPORT_S, CONFIRMING * self.times.given_s)
        limit = self.times.short_s if self.hangs or worker.shrinking else self.times.limit_s
        return limit(worker.work, worker.check)

    def _take(self, worker: Worker, message: dict[str, Any]) -> None:
        """Handle a message that is no answer: an outcome, seconds spent, a lost GPU, or a fork that returned."""
        if "spent" in message:
            self.account.add(message["spent"])
        elif "outcome" in message:
            self.times.add(worker.work, worker.took_s)
            if message.get("peak", 0) > self._memory_bytes:
                self._too_large(worker)
                return
            worker.case = ""
            self.hear(worker, CaseOutcome.of(message["outcome"]))
        elif "lost" in message:
            worker.reported_side = str(message.get("side") or "")
            self.nursery.end(worker, "lost", f"lost the GPU: {message['lost']}")
        elif "forked" in message:
            worker.case = str(message.get("case") or worker.case)
            worker.reported_side = str(message.get("side") or "")
            self.nursery.end(worker, "fork", "returned in a second process, as os.fork does")

    def alone(self, check: str, case: str, work: float = 0.0, *, linger: bool = False) -> "Alone":
        """Run one case in a fresh process.

        Args:
            check: The name of the check.
            case: The id of the case.
            work: The measure of its work; the time limit is longer than in a run.
            linger: Whether to wait a little after its answer, for a forked process that returns.
        """
        worker = self.start()
        self.wait(*worker.asked)
        began = time.monotonic()
        worker.limit_s = CONFIRMING * self.times.limit_s(work, check)
        asked = worker.ask("one", check=check, case=case)
        self.wait(asked)
        result = Alone(**vars(asked), seconds=time.monotonic() - began)
        while linger and worker.alive and time.monotonic() - began < result.seconds + _LINGER_S:
            self.step()
        if worker.status is not None and not result.died:
            result.status, result.why, result.description, result.place = (
                worker.status,
                worker.why,
                worker.description,
                worker.place,
            )
        self.leave(worker)
        return result

    def ended_outside(self) -> None:
        """Count a process that was ended from outside, and end the run if they are too many."""
        self._outside += 1
        if self._outside > _MOST_OUTSIDE:
            raise UsageError(
                f"{self._outside} processes were ended from outside: let them run, or run with fewer --jobs"
            )
