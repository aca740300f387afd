"""A few words of shared memory that say what a process is at: they can be read after it has died.

The supervisor makes them and gives them to a worker; in a process that has none, nothing is noted.
"""

import mmap
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["NOTHING", "Beacon", "Place", "left", "note_case", "note_kind", "note_side", "note_step", "shine"]

NOTHING = ""

_SIDE, _STEP, _KIND, _CASE = slice(0, 16), slice(16, 48), slice(48, 64), slice(64, 448)
_SIZE = mmap.PAGESIZE


@dataclass(frozen=True)
class Place:
    """What a process was at when it was last heard of: whose code, at what, of which kind of pair, on which case."""

    side: str = NOTHING
    step: str = NOTHING
    kind: str = NOTHING
    case: str = NOTHING


class Beacon:
    """The shared memory, as the process that made it holds it."""

    def __init__(self) -> None:
        """Make it; an OSError where there is no memory for it."""
        self.descriptor = _anonymous_file()
        os.truncate(self.descriptor, _SIZE)
        self._memory = mmap.mmap(self.descriptor, _SIZE)

    def given(self) -> None:
        """Close the descriptor, which another process has by now."""
        os.close(self.descriptor)

    def read(self) -> Place:
        """What was noted last."""
        return Place(*(_text(self._memory[part]) for part in (_SIDE, _STEP, _KIND, _CASE)))

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()


_noted: mmap.mmap | None = None


def shine(descriptor: int) -> None:
    """Note in the memory behind `descriptor` what this process is at, from here on."""
    global _noted
    _noted = mmap.mmap(descriptor, _SIZE)
    os.close(descriptor)


def left() -> None:
    """Foreign code was left: a process that was forked in it, and has come back from it, says so and ends."""
    if returned is not None:
        returned()


returned: Callable[[], None] | None = None
"""Is called where foreign code is left, in a process that was forked from the one that entered it."""


def note_side(side: str) -> None:
    """Whose code runs: `reference` or `candidate`."""
    if _noted is not None:
        _noted[_SIDE] = _padded(side, _SIDE)


def note_step(step: str) -> None:
    """What is done, in words: `while it was imported`."""
    if _noted is not None:
        _noted[_STEP] = _padded(step, _STEP)


def note_kind(kind: str) -> None:
    """The kind of the pair, where it is known."""
    if _noted is not None:
        _noted[_KIND] = _padded(kind, _KIND)


def note_case(case: str) -> None:
    """The id of the case."""
    if _noted is not None:
        _noted[_CASE] = _padded(case, _CASE)


def _padded(text: str, part: slice) -> bytes:
    size = part.stop - part.start
    return text.encode()[:size].ljust(size, b"\0")


def _text(data: bytes) -> str:
    return data.rstrip(b"\0").decode(errors="replace")


def _anonymous_file() -> int:
    if hasattr(os, "memfd_create"):
        return os.memfd_create("equivcheck")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
