"""The time of one repetition: of a GPU between two of its events, or of everything by a synchronised wall clock.

Between the events the GPU works without a pause: it is kept busy before them until the host has launched the repetition, and what
launching took is told apart. The L2 cache of a GPU is emptied before each repetition.
"""

import time
from collections.abc import Callable

import torch

from equivcheck.runtime.device import type_of

__all__ = ["LEARNING", "Action", "Stopwatch", "clock_name"]

Action = Callable[[int], object]
"""One repetition; its number picks the buffers."""

LEARNING = 2
"""Repetitions of an action until it is known how long the host takes to launch it."""
_AHEAD, _MOST_AHEAD_MS = 1.5, 50.0  # times what launching takes: it is not the same each time
_CYCLES_PER_MS = 2_000_000  # of a clock of 2 GHz; a slower one is busy for longer, which does no harm


def clock_name(device: torch.device, wall: bool) -> str:
    """The clock that a Stopwatch for this device has: records that were timed by different ones are not compared."""
    row = type_of(device)
    if not row.accelerator:
        return "wall clock"
    return "wall clock, synchronised" if wall or not row.events else f"{row.title} events, launched before"


class Stopwatch:
    """Runs one repetition of an action and gives its time in ms."""

    def __init__(self, device: torch.device, wall: bool) -> None:
        self._device, self._type = device, type_of(device)
        self._wall = wall or not self._type.events
        self._launching: dict[int, list[float]] = {}  # by id of the action: ms, without anything ahead of it
        self._cache: torch.Tensor | None = None
        if self._type.accelerator:
            size = max(2 * self._type.cache_bytes(device), 2**26)
            self._cache = torch.empty(size, dtype=torch.int8, device=device)

    def __call__(self, action: Action, number: int, hosts_ms: list[float] | None = None) -> float:
        """The time of repetition `number`; what launching it took is added to `hosts_ms` where the GPU alone is timed."""
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
        ahead = self._ahead_ms(action)
        with gpu.device(self._device):
            gpu._sleep(int(ahead * _CYCLES_PER_MS))
        self._cache.zero_()
        start.record(stream)
        began = time.perf_counter()
        action(number)
        launched = (time.perf_counter() - began) * 1e3
        end.record(stream)
        self._synchronize()
        if not ahead:
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

    def _ahead_ms(self, action: Action) -> float:
        """How long the GPU is to be busy before the repetition: nothing at first, until it is known how long launching takes."""
        seen = self._launching.get(id(action), ())
        if len(seen) < LEARNING:
            return 0.0
        # not what later repetitions take: those wait for the GPU where its queue is full, and would make it wait longer
        return min(_AHEAD * min(seen), _MOST_AHEAD_MS)
