"""The time of one repetition: between two events of a GPU, or by a synchronised wall clock.

Between the events the GPU works without a pause: before them it is kept busy until the host has launched the
repetition. The time of the launch is recorded separately. The L2 cache of a GPU is emptied before each repetition.
"""

import time
from collections.abc import Callable

import torch

from equivcheck.runtime.device import type_of

__all__ = ["LEARNING", "Action", "Stopwatch", "clock_name"]

Action = Callable[[int], object]
"""One repetition; its number picks the buffers. If it has a method `prepare`, that is called before, out of the time."""

LEARNING = 2
"""Repetitions of an action after which the launch time of the host is known."""
_BUSY_LAUNCHES, _MOST_BUSY_MS = 1.5, 50.0  # the GPU is busy for 1.5 launch times, as these vary
_CYCLES_PER_MS = 2_000_000  # of a clock of 2 GHz; a slower one is busy for longer, which does no harm


def clock_name(device: torch.device, wall: bool) -> str:
    """The name of the clock of a Stopwatch for this device; times by different clocks are not compared."""
    row = type_of(device)
    if not row.accelerator:
        return "wall clock"
    return "wall clock, synchronised" if wall or not row.events else f"{row.title} events, launched before"


class Stopwatch:
    """Runs one repetition of an action and returns its time in ms."""

    def __init__(self, device: torch.device, wall: bool) -> None:
        self._device, self._type = device, type_of(device)
        self._wall = wall or not self._type.events
        self._launching: dict[int, list[float]] = {}  # by id of the action: launch times in ms on an idle GPU
        self._cache: torch.Tensor | None = None
        if self._type.accelerator:
            size = max(2 * self._type.cache_bytes(device), 2**26)
            self._cache = torch.empty(size, dtype=torch.int8, device=device)

    def __call__(self, action: Action, number: int, hosts_ms: list[float] | None = None) -> float:
        """The time of repetition `number` in ms; `hosts_ms` gets its launch time if the GPU alone is timed."""
        prepare = getattr(action, "prepare", None)
        if prepare is not None:
            prepare(number)
        if self._cache is None:
            return self._walled(action, number)
        self._synchronize()
        if self._wall:
            self._cache.zero_()
            self._synchronize()
            return self._walled(action, number)
        gpu = self._type.module
        start, end = gpu.Event(enable_timing=True), gpu.Event(enable_timing=True)
        stream = gpu.current_stream(self._device)
        busy_ms = self._busy_ms(action)
        with gpu.device(self._device):
            gpu._sleep(int(busy_ms * _CYCLES_PER_MS))
        self._cache.zero_()
        start.record(stream)
        began = time.perf_counter()
        action(number)
        launched = (time.perf_counter() - began) * 1e3
        end.record(stream)
        self._synchronize()
        if not busy_ms:
            self._launching.setdefault(id(action), []).append(launched)
        if hosts_ms is not None:
            hosts_ms.append(launched)
        return float(start.elapsed_time(end))

    def _walled(self, action: Action, number: int) -> float:
        began = time.perf_counter()
        action(number)
        self._synchronize()
        return (time.perf_counter() - began) * 1e3

    def _synchronize(self) -> None:
        self._type.synchronize(self._device)

    def _busy_ms(self, action: Action) -> float:
        """The time for which the GPU is kept busy before the repetition; 0 until the launch time is known."""
        seen = self._launching.get(id(action), ())
        if len(seen) < LEARNING:
            return 0.0
        # later repetitions do not count: with a full queue they wait for the GPU, which would make it wait longer
        return min(_BUSY_LAUNCHES * min(seen), _MOST_BUSY_MS)
