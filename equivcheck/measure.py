"""Time and memory of two actions: measured in turn (A B A B …), so that whatever drifts hits both alike.

Warm-up is apart, and an action is told the number of its repetition so that it can change buffers.
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

from equivcheck.comparison import student_quantile
from equivcheck.stopwatch import LEARNING, Action, Stopwatch

__all__ = [
    "Action",
    "DoesNotFit",
    "Make",
    "Paired",
    "Quartiles",
    "alone",
    "fitting",
    "paired",
    "release",
]

Make = Callable[[], Action]
"""Builds an action with all that it holds: modules, inputs, optimizer."""

ROUNDS = 4
STANDARD_ERROR = 0.005
_FEWEST, _ENOUGH, _MOST = 3, 5, 2000  # pairs in one round: if time is over, if they agree, and in any case
_WARM_UP, _WARM_UP_S = LEARNING, 0.1
_NO_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")
_CERTAINTY = 0.05  # two-sided: intervals hold in 95 of 100 runs


class DoesNotFit(Exception):
    """The device has no memory left for an action: a result, and not a crash."""


@dataclass(frozen=True)
class Quartiles:
    """Of the times of one action, in ms, over `count` repetitions.

    `host_ms` is the median of what launching took the host, where the times are those of a GPU alone: with more of it than
    `median_ms`, the action by itself in a loop is as fast as the host, and not as the GPU.
    """

    median_ms: float
    lower_ms: float
    upper_ms: float
    count: int
    host_ms: float | None = None

    @classmethod
    def of(cls, times_ms: Sequence[float], hosts_ms: Sequence[float] = ()) -> "Quartiles":
        lower, median, upper = statistics.quantiles(times_ms, n=4, method="inclusive")
        return cls(median, lower, upper, len(times_ms), statistics.median(hosts_ms) if hosts_ms else None)


@dataclass(frozen=True)
class Paired:
    """Two actions measured in turn: `ratio` is the first's time over the second's, and `low` … `high` its 95 % interval.

    `standard_error` is relative to the ratio; `settled` says whether it came down to what was asked for before time ran out.
    """

    first: Quartiles
    second: Quartiles
    ratio: float
    low: float
    high: float
    standard_error: float
    settled: bool


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

    Both are built anew for each of the rounds: where memory happens to lie moves a median more than chance within a round, and
    the interval covers both. Raises DoesNotFit where the two do not fit beside each other.
    """
    began = time.monotonic()
    times: tuple[list[float], list[float]] = ([], [])
    hosts: tuple[list[float], list[float]] = ([], [])
    ratios: list[list[float]] = []
    for number in range(rounds):
        until = began + max_seconds * (number + 1) / rounds
        with fitting(device), _freed_memory_kept(device):
            first, second = make_first(), make_second()
            one = Stopwatch(device, wall)
            _warm_up((first, second), one, 1 if ratios else _WARM_UP)
            here: list[float] = []
            while len(here) < _MOST:
                a, b = one(first, len(here), hosts[0]), one(second, len(here), hosts[1])
                times[0].append(a)
                times[1].append(b)
                here.append(math.log(a / b))
                # the rounds together are to reach it, so each may stop at a root of their number times it
                if len(here) >= _ENOUGH and _median_error(here) < standard_error * math.sqrt(rounds):
                    break
                if len(here) >= _FEWEST and time.monotonic() > until:
                    break
            ratios.append(here)
            del first, second, one
        release(device)
    pooled = [ratio for here in ratios for ratio in here]
    middle = statistics.median(pooled)
    low, high, error = _interval(ratios)
    return Paired(
        Quartiles.of(times[0], hosts[0]),
        Quartiles.of(times[1], hosts[1]),
        math.exp(middle),
        math.exp(min(low, middle)),
        math.exp(max(high, middle)),
        error,
        error <= standard_error,
    )


def alone(make: Make, device: torch.device, *, max_seconds: float, wall: bool = False) -> Quartiles:
    """The times of one action, where there is nothing to measure it against; raises DoesNotFit."""
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
    """Inside, running out of memory is a DoesNotFit; call `release` once that is handled: its frames hold tensors."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        told = " ".join(str(error).split())[:200] or type(error).__name__
        # torch's CPU allocator and the libraries of CUDA have no class of their own for it
        if isinstance(error, torch.OutOfMemoryError | MemoryError) or any(words in told for words in _NO_MEMORY):
            raise DoesNotFit(told) from None
        raise


@contextmanager
def _freed_memory_kept(device: torch.device) -> Iterator[None]:
    """Inside, the CPU's allocator reuses what was freed, as CUDA's does; where it is not glibc's, nothing changes.

    Otherwise the past of the process decides: the same forward pass faulted 4096 pages in anew, or none at all after a larger
    tensor had been freed, and took half as long then.
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
    """Give back what nobody holds any more, so that neither a cache nor a cycle of references is in the way."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _warm_up(actions: Sequence[Action], one: Stopwatch, fewest: int) -> None:
    began, number = time.monotonic(), 0
    while number < fewest or (time.monotonic() - began < _WARM_UP_S and number < _MOST):
        for action in actions:
            one(action, number)
        number += 1


def _median_error(logs: Sequence[float]) -> float:
    """The standard error of the median, from the quartiles: single repetitions that were interrupted do not count."""
    lower, _, upper = statistics.quantiles(logs, n=4, method="inclusive")
    return math.sqrt(math.pi / 2) * (upper - lower) / 1.349 / math.sqrt(len(logs))


def _interval(ratios: Sequence[Sequence[float]]) -> tuple[float, float, float]:
    """The interval of the middle log ratio: within the rounds and between them, whichever is wider; and its standard error."""
    pooled = sorted(ratio for here in ratios for ratio in here)
    middle = statistics.median(pooled)
    within = _median_error(pooled)
    if len(ratios) == 1:
        return middle - 1.96 * within, middle + 1.96 * within, within
    medians = [statistics.median(here) for here in ratios]
    between = statistics.stdev(medians) / math.sqrt(len(medians))
    half = max(1.96 * within, student_quantile(_CERTAINTY, len(medians) - 1) * between)
    return middle - half, middle + half, max(within, between)
