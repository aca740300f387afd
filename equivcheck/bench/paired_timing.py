"""The times of two actions, measured in turn (A B B A …), so that any drift affects both alike.

Warm-up is not counted. An action is given the number of its repetition, so that it can change buffers.
"""

import ctypes
import gc
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import torch

from equivcheck.bench.timer import LEARNING, Action, Stopwatch
from equivcheck.numerics.quantiles import student_quantile
from equivcheck.runtime.device import type_of

__all__ = [
    "Action",
    "DoesNotFit",
    "Make",
    "Paired",
    "Pairing",
    "Quartiles",
    "alone",
    "fitting",
    "paired",
    "release",
]

Make = Callable[[], Action]
"""Builds an action with its modules, inputs and optimizer."""

ROUNDS = 4
STANDARD_ERROR = 0.005
_FEWEST, _ENOUGH, _MOST = 3, 5, 2000  # pairs in one round: once time is over, once they agree, and at most
_WARM_UP, _WARM_UP_S = LEARNING, 0.1
_NO_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
_CERTAINTY = 0.05  # two-sided: intervals hold in 95 of 100 runs


class DoesNotFit(Exception):
    """The device has no memory left for an action; that is a result, and not a crash."""


@dataclass(frozen=True)
class Quartiles:
    """Quartiles of the times of one action, in ms, over `count` repetitions.

    `host_ms` is the median time that the host took to launch the action, if the times are those of a GPU alone. If it
    is above `median_ms`, the action in a loop is as fast as the host, and not as the GPU.
    """

    median_ms: float
    lower_ms: float
    upper_ms: float
    count: int
    host_ms: float | None = None

    @classmethod
    def of(cls, times_ms: Sequence[float], hosts_ms: Sequence[float] = ()) -> "Quartiles":
        """The quartiles of these times, in ms."""
        lower, median, upper = statistics.quantiles(times_ms, n=4, method="inclusive")
        return cls(median, lower, upper, len(times_ms), statistics.median(hosts_ms) if hosts_ms else None)


@dataclass(frozen=True)
class Paired:
    """Two actions measured in turn: `ratio` is the first's time over the second's, `low` … `high` its 95 % interval.

    `standard_error` is relative to the ratio; `settled` says whether it reached the requested one before time ran out.
    """

    first: Quartiles
    second: Quartiles
    ratio: float
    low: float
    high: float
    standard_error: float
    settled: bool


class Pairing:
    """Two actions timed in turn, in rounds that may lie apart; the interval covers the differences between rounds.

    Both are built anew for each round: the addresses of their memory move a median more than chance within a round.
    """

    def __init__(
        self,
        make_first: Make,
        make_second: Make,
        device: torch.device,
        *,
        standard_error: float = STANDARD_ERROR,
        wall: bool = False,
        rounds: int = ROUNDS,
    ) -> None:
        self._makes, self._device, self._wall = (make_first, make_second), device, wall
        # the rounds together must reach it, so each may stop at √rounds times it
        self._standard_error, self._enough = standard_error, standard_error * math.sqrt(rounds)
        self._times: tuple[list[float], list[float]] = ([], [])
        self._hosts: tuple[list[float], list[float]] = ([], [])
        self._ratios: list[list[float]] = []

    def round(self, max_seconds: float) -> None:
        """Time both in turn until the ratio is precise, or for `max_seconds`; DoesNotFit if they do not both fit."""
        until = time.monotonic() + max_seconds
        with fitting(self._device), _freed_memory_kept(self._device):
            actions = tuple(make() for make in self._makes)
            one = Stopwatch(self._device, self._wall)
            _warm_up(actions, one, 1 if self._ratios else _WARM_UP)
            here: list[float] = []
            while len(here) < _MOST:
                both = [0.0, 0.0]
                for side in (
                    (0, 1) if len(here) % 2 == 0 else (1, 0)
                ):  # the second one runs on a machine in another state
                    both[side] = one(actions[side], len(here), self._hosts[side])
                    self._times[side].append(both[side])
                here.append(math.log(both[0] / both[1]))
                if len(here) >= _ENOUGH and _median_error(here) < self._enough:
                    break
                if len(here) >= _FEWEST and time.monotonic() > until:
                    break
            self._ratios.append(here)
            del actions, one
        release(self._device)

    @property
    def result(self) -> Paired | None:
        """The result of the rounds so far; None before the first."""
        if not self._ratios:
            return None
        middle = statistics.median(ratio for here in self._ratios for ratio in here)
        low, high, error = _interval(self._ratios)
        return Paired(
            Quartiles.of(self._times[0], self._hosts[0]),
            Quartiles.of(self._times[1], self._hosts[1]),
            math.exp(middle),
            math.exp(min(low, middle)),
            math.exp(max(high, middle)),
            error,
            error <= self._standard_error,
        )


def paired(
    make_first: Make,
    make_second: Make,
    device: torch.device,
    *,
    max_seconds: float,
    standard_error: float = STANDARD_ERROR,
    wall: bool = False,
    rounds: int = ROUNDS,
) -> Paired:
    """Time two actions in turn until the standard error of their ratio is `standard_error`, or for `max_seconds`.

    Raises:
        DoesNotFit: The two do not fit beside each other.
    """
    began = time.monotonic()
    pairing = Pairing(make_first, make_second, device, standard_error=standard_error, wall=wall, rounds=rounds)
    for number in range(rounds):
        pairing.round(began + max_seconds * (number + 1) / rounds - time.monotonic())
    assert pairing.result is not None
    return pairing.result


def alone(make: Make, device: torch.device, *, max_seconds: float, wall: bool = False) -> Quartiles:
    """The times of one action, without another one to compare it with; raise DoesNotFit if it does not fit."""
    until = time.monotonic() + max_seconds
    with fitting(device), _freed_memory_kept(device):
        action, one = make(), Stopwatch(device, wall)
        _warm_up((action,), one, _WARM_UP)
        times: list[float] = []
        hosts: list[float] = []
        while len(times) < _ENOUGH or (time.monotonic() < until and len(times) < _MOST):
            times.append(one(action, len(times), hosts))
            if len(times) >= 4 * _ENOUGH and _median_error([math.log(t) for t in times]) < STANDARD_ERROR:
                break
        del action, one
    release(device)
    return Quartiles.of(times, hosts)


@contextmanager
def fitting(device: torch.device) -> Iterator[None]:
    """Inside, running out of memory is a DoesNotFit; call `release` after handling it: its frames hold tensors."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        # torch's CPU allocator and the libraries of CUDA have no error class for it
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in reason for words in _NO_MEMORY):
            raise DoesNotFit(reason) from None
        raise


@contextmanager
def _freed_memory_kept(device: torch.device) -> Iterator[None]:
    """Inside, the CPU's allocator reuses freed memory, as CUDA's does; nothing changes if it is not glibc's.

    Otherwise the past of the process decides: the same forward pass faulted 4096 pages in anew, or, after a larger
    tensor had been freed, none at all, and then took half as long.
    """
    mallopt = None
    if device.type == "cpu":
        with suppress(OSError, AttributeError):
            mallopt = ctypes.CDLL(None).mallopt
    if mallopt is None:
        yield
        return
    mmap_max, trim_threshold = -4, -1
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)
    try:
        yield
    finally:
        mallopt(mmap_max, 2**16)
        mallopt(trim_threshold, 2**17)


def release(device: torch.device) -> None:
    """Free the memory of unreachable tensors: collect cycles of references, and empty the device's cache."""
    gc.collect()
    type_of(device).empty_cache()


def _warm_up(actions: Sequence[Action], one: Stopwatch, fewest: int) -> None:
    began, number = time.monotonic(), 0
    while number < fewest or (time.monotonic() - began < _WARM_UP_S and number < _MOST):
        for action in actions:
            one(action, number)
        number += 1


def _median_error(logs: Sequence[float]) -> float:
    """The standard error of the median, from the quartiles: a few interrupted repetitions do not affect it."""
    lower, _, upper = statistics.quantiles(logs, n=4, method="inclusive")
    return math.sqrt(math.pi / 2) * (upper - lower) / 1.349 / math.sqrt(len(logs))


def _interval(ratios: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """The 95 % interval of the median log ratio, and its standard error.

    Each is the wider one of two: from the spread within the rounds, and from the spread between them.
    """
    pooled = sorted(ratio for here in ratios for ratio in here)
    middle = statistics.median(pooled)
    within = _median_error(pooled)
    if len(ratios) == 1:
        return middle - 1.96 * within, middle + 1.96 * within, within
    medians = [statistics.median(here) for here in ratios]
    between = statistics.stdev(medians) / math.sqrt(len(medians))
    half = max(1.96 * within, student_quantile(_CERTAINTY, len(medians) - 1) * between)
    return middle - half, middle + half, max(within, between)
