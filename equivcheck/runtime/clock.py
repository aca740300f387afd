"""A clock of one process: which part of the judging its seconds go to. Without a clock nothing is measured.

A part is entered and left like a context. The time goes to the innermost part, so that each second counts once. On an
accelerator these are the host's seconds; the clock waits for the device at each border, so that a part has the time of
the kernels that it has launched. Without a clock there is no such wait.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

from equivcheck.runtime.device import type_of

if TYPE_CHECKING:
    import torch

__all__ = [
    "CANDIDATE",
    "COMPARING",
    "DRAWING",
    "ORACLE",
    "OTHER",
    "PARTS",
    "PERTURBED",
    "PLANTED",
    "REFERENCE",
    "REST",
    "SENSITIVITY",
    "Clock",
    "drained",
    "in_part",
    "in_stage",
    "kept",
    "start",
    "stop",
    "wait_for",
]

REFERENCE, CANDIDATE, ORACLE, PERTURBED = "reference", "candidate", "oracle", "perturbed runs"
DRAWING, COMPARING, PLANTED, REST = "drawing", "comparing", "planted faults", "rest"

PARTS = (REFERENCE, CANDIDATE, ORACLE, PERTURBED, DRAWING, COMPARING, PLANTED, REST)
"""The parts of the judging, in the order in which they are shown."""

SENSITIVITY, OTHER = "sensitivity", "other"
"""The stages that are no checks: the search for planted faults; and loading, the plan and the look back."""

_STAYS = {ORACLE: (REFERENCE, CANDIDATE), PERTURBED: (REFERENCE, CANDIDATE, ORACLE)}
"""Part -> the parts inside of it that belong to it: the oracle runs code of the original."""


class Clock:
    """The seconds of a process by stage and part.

    Attributes:
        stage: The check whose cases run, `SENSITIVITY` or `OTHER`.
        settle: Waits for the device.
    """

    def __init__(self, now: Callable[[], float] = time.perf_counter) -> None:
        """Count nothing yet.

        Args:
            now: The time in s.
        """
        self.stage = OTHER
        self.settle: Callable[[], None] = _nothing
        self._now, self._since = now, 0.0
        self._parts: list[str] = []
        self._seconds: dict[str, dict[str, float]] = {}

    def enter(self, part: str) -> None:
        """Count for `part` until it is left, or another one is entered."""
        self._count()
        inside = self._parts[-1] if self._parts else ""
        if part in _STAYS.get(inside, ()):
            part = inside
        elif part == CANDIDATE and self.stage == SENSITIVITY:
            part = PLANTED  # there the candidate is an attention with a fault
        self._parts.append(part)

    def leave(self) -> None:
        """Count for the part around the innermost one again; for none outside of all parts."""
        self._count()
        self._parts.pop()

    def turn_to(self, stage: str) -> str:
        """Count for another stage from now on; the stage until now."""
        self._count()
        before, self.stage = self.stage, stage
        return before

    def drain(self) -> dict[str, dict[str, float]]:
        """The seconds since the last call, by stage and part."""
        self._count()
        seconds, self._seconds = self._seconds, {}
        return seconds

    def _count(self) -> None:
        self.settle()
        now = self._now()
        if self._parts:
            parts = self._seconds.setdefault(self.stage, {})
            parts[self._parts[-1]] = parts.get(self._parts[-1], 0.0) + now - self._since
        self._since = now


def _nothing() -> None:
    pass


class _Inside:
    """The time inside of a context counts for one part."""

    __slots__ = ("_clock", "_part")

    def __init__(self, clock: Clock, part: str) -> None:
        self._clock, self._part = clock, part

    def __enter__(self) -> None:
        self._clock.enter(self._part)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._clock.leave()


_clock: Clock | None = None
_NO_CLOCK: AbstractContextManager[None] = nullcontext()


def in_part(part: str) -> AbstractContextManager[None]:
    """Inside, time counts for this part of `PARTS`."""
    return _NO_CLOCK if _clock is None else _Inside(_clock, part)


@contextmanager
def in_stage(stage: str) -> Iterator[None]:
    """Inside, time counts for this stage: the name of a check, or `SENSITIVITY`."""
    clock = _clock
    before = "" if clock is None else clock.turn_to(stage)
    try:
        yield
    finally:
        if clock is not None:
            clock.turn_to(before)


def start(clock: Clock | None = None) -> None:
    """Give this process a clock; one that it has goes on."""
    global _clock
    if _clock is None or clock is not None:
        _clock = clock or Clock()


def stop() -> None:
    """Take the clock of this process away."""
    global _clock
    _clock = None


@contextmanager
def kept(wanted: bool) -> Iterator[None]:
    """Inside, this process has a clock of its work if that is `wanted`, and none otherwise."""
    global _clock
    before, _clock = _clock, Clock() if wanted else None
    try:
        with in_part(REST):
            yield
    finally:
        _clock = before


def drained() -> dict[str, dict[str, float]] | None:
    """The seconds of this process since the last call, by stage and part; None without a clock."""
    return None if _clock is None else _clock.drain()


def wait_for(device: "torch.device") -> None:
    """Let the clock wait for this device at each border, if there is a clock, and the device runs beside the host."""
    if _clock is not None and type_of(device).accelerator:
        _clock.settle = partial(_settled, device)


def _settled(device: "torch.device") -> None:
    with suppress(RuntimeError):  # the next call of the device raises it again, where it is judged
        type_of(device).synchronize(device)
