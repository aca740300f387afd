"""Who does a run's work: this process alone, or several, each with the pair loaded for itself.

Work comes in pieces that do not depend on each other: a class of one check's cases, or one planted fault. Which cases are
drawn depends on the seed and not on who draws them, so that one process and many come to the same report.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from typing import Any, Protocol

import torch

from equivcheck import ahead, working_folder
from equivcheck.case_space import classes
from equivcheck.checks import Check
from equivcheck.errors import UsageError
from equivcheck.file_access import Access, Seen, seen_here, watch_this_process
from equivcheck.kinds import resolve
from equivcheck.search import Drawn, Search, seed_for
from equivcheck.sensitivity import Sighting, first_sighting, planted_named
from equivcheck.subject import Subject

__all__ = ["Alone", "Crew", "Workers", "crew", "jobs_for"]

_GIB = 2**30
_PER_JOB_BYTES = 4 * _GIB  # of a GPU's memory: a CUDA context, and the largest case with its truth
_MOST_ON_CPU = 8
_MOST_ON_CUDA = 14
_PLENTY = 1e9  # seconds; an infinite time limit, for `time.sleep` and pickles alike


class Workers(Protocol):
    """Whoever runs searches and looks for planted faults."""

    jobs: int

    def begin(self, searches: Sequence[Search], dtypes: Sequence[str], seed: int) -> None:
        """Is told of all searches, so that later ones may start before earlier ones have ended."""

    def run(self, search: Search, dtypes: Sequence[str], seed: int) -> bool:
        """Draw and run the cases of one search; False where it has none."""

    def sightings(self, sightings: Sequence[Sighting], told: Callable[[int], None]) -> Iterator[str | None]:
        """For each planted fault in turn where it was first seen, as `first_sighting` says it."""


class Alone:
    """This process does everything itself, one thing after the other."""

    jobs = 1

    def begin(self, searches: Sequence[Search], dtypes: Sequence[str], seed: int) -> None:
        pass

    def run(self, search: Search, dtypes: Sequence[str], seed: int) -> bool:
        drawn_from = classes(search.check, search.subject, dtypes, search.planned)
        search.dtypes = tuple(dtypes)
        search.run(drawn_from, seed_for(seed, search.check.name))
        return bool(drawn_from)

    def sightings(self, sightings: Sequence[Sighting], told: Callable[[int], None]) -> Iterator[str | None]:
        for number, sighting in enumerate(sightings):
            told(number)
            yield first_sighting(sighting.fault, sighting.cases, sighting.until)
        told(len(sightings))


class Crew:
    """Several processes; the pieces of every search are handed out at once, and taken back in order."""

    def __init__(self, pool: ProcessPoolExecutor, jobs: int, access: Access | None = None) -> None:
        self.pool, self.jobs = pool, jobs
        self._access = access
        self._drawing: dict[str, list[Future[tuple[Drawn, Seen]]]] = {}

    def begin(self, searches: Sequence[Search], dtypes: Sequence[str], seed: int) -> None:
        # what takes longest must not start last
        for search in sorted(searches, key=lambda search: not search.check.dear):
            count = len(classes(search.check, search.subject, dtypes, search.planned))
            until = min(search.until, time.monotonic() + _PLENTY)
            self._drawing[search.check.name] = [
                _submit(
                    self.pool, _draw, search.check, search.planned, search.shrink_s, until, tuple(dtypes), seed, number
                )
                for number in range(count)
            ]

    def run(self, search: Search, dtypes: Sequence[str], seed: int) -> bool:
        futures = self._drawing.pop(search.check.name)
        for number, future in enumerate(futures):
            drawn, seen = _result(future)
            search.take(drawn)
            if self._access is not None:
                self._access.add(seen)
            search.told(len(search.held))
            if search.minimal is not None:
                for rest in futures[number + 1 :]:
                    rest.cancel()
                break
        return bool(futures)

    def sightings(self, sightings: Sequence[Sighting], told: Callable[[int], None]) -> Iterator[str | None]:
        futures = [
            _submit(self.pool, _see, s.fault.name, s.profile, s.seed, s.checks, s.cases, s.until) for s in sightings
        ]
        for number, future in enumerate(futures):
            told(number)
            yield _result(future)
        told(len(futures))


def _submit(pool: ProcessPoolExecutor, *work: Any) -> "Future[Any]":
    # a process may be started for it, and begins where this one is: in a folder that the pair may have removed
    with working_folder.elsewhere():
        return pool.submit(*work)


def _result(future: "Future[Any]") -> Any:
    try:
        return future.result()
    except BrokenProcessPool:
        raise UsageError(
            "a process that ran the pair has died (out of memory, or a crash in a kernel): run with --jobs 1 to see where"
        ) from None


@contextmanager
def crew(
    reference: Any,
    candidate: Any,
    kind: str,
    device: torch.device,
    jobs: int,
    options: Mapping[str, Any],
    access: Access | None = None,
) -> Iterator[Workers]:
    """`jobs` processes for this pair, or this one alone; the rest is what `resolve` is given, and `access`, to which is added
    what foreign code uses in them.

    A pair can be loaded in other processes where it was given as import strings. They load it at once, while this one does: where
    it cannot be loaded, `resolve` tells so here.
    """
    if jobs <= 1 or not (isinstance(reference, str) and isinstance(candidate, str)) or not _travels(options):
        yield Alone()
        return
    ahead.start()
    threads = max(1, (os.cpu_count() or 1) // jobs)
    given = (
        str(working_folder.current()),
        list(ahead.inherited),
        reference,
        candidate,
        kind,
        str(device),
        dict(options),
        list(sys.path),
        threads,
        jobs,
    )
    pool = ProcessPoolExecutor(jobs, multiprocessing.get_context(ahead.METHOD), _start, given)
    for _ in range(jobs):
        _submit(pool, _nothing)  # a pool starts its processes when it is given something to do
    try:
        yield Crew(pool, jobs, access)
    finally:
        for process in list((getattr(pool, "_processes", None) or {}).values()):
            process.terminate()  # whatever they are at is of no use any more
        pool.shutdown(wait=True, cancel_futures=True)


def _travels(options: Mapping[str, Any]) -> bool:
    try:
        pickle.dumps(dict(options))
    except Exception:
        return False
    return True


def jobs_for(device: torch.device) -> int:
    """How many processes suit this machine: one a core, and on CUDA no more than its memory takes."""
    cores = os.cpu_count() or 1
    if device.type != "cuda":
        return min(_MOST_ON_CPU, cores)
    free, _ = torch.cuda.mem_get_info(device)
    # each waits for the GPU most of the time, so a core for every one of them is soon enough
    return max(1, min(_MOST_ON_CUDA, cores - 2, free // _PER_JOB_BYTES))


# --- in the other processes -------------------------------------------------------------------------------------------

_pair: list[Subject] = []
_failure: list[Exception] = []


def _start(
    folder: str,
    inherited: Sequence[ahead.Inherited],
    reference: str,
    candidate: str,
    kind: str,
    device: str,
    options: Mapping[str, Any],
    path: Sequence[str],
    threads: int,
    jobs: int,
) -> None:
    for one in inherited:
        one.take()
    with suppress(OSError):
        os.chdir(folder)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    warnings.simplefilter("ignore")  # the parent has warned already
    sys.path[:] = path
    torch.set_num_threads(threads)
    watch_this_process()
    try:
        subject = resolve(reference, candidate, kind=kind, device=device, **options)
    except Exception as error:
        _failure.append(
            error
        )  # the parent is finding out the same, and says it better than a process that fails to start
        return
    subject.memory.shared_by(jobs)
    _pair.append(subject)


def _loaded() -> Subject:
    if _failure:
        raise _failure[0]
    return _pair[0]


def _nothing() -> None:
    pass


def _leave_with(parent: int) -> None:
    """Nobody waits for the results of a child whose parent was killed: the process it was forked from ends with the parent."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


def _draw(
    check: Check, planned: int, shrink_s: float, until: float, dtypes: Sequence[str], seed: int, number: int
) -> tuple[Drawn, Seen]:
    subject = _loaded()
    search = Search(check, subject, planned, shrink_s, until, lambda _: None, dtypes=dtypes)
    search.run(classes(check, subject, dtypes, planned), seed_for(seed, check.name), only=number)
    return search.drawn, seen_here()


def _see(name: str, profile: str, seed: int, checks: frozenset[str], cases: Sequence[Any], until: float) -> str | None:
    return first_sighting(planted_named(_loaded(), checks, profile, seed, name), cases, until)
