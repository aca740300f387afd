"""A page of shared memory in which a worker notes its current step, for the supervisor to read after its death.

The supervisor creates the page and gives it to a worker. In a process without one, the `note_*` functions do nothing.
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
    """The last step that a process noted: whose code ran, at which step, for which kind of pair, on which case."""

    side: str = NOTHING
    step: str = NOTHING
    kind: str = NOTHING
    case: str = NOTHING


class Beacon:
    """The shared memory, in the process that created it."""

    def __init__(self) -> None:
        """Create the memory; an OSError if there is none."""
        self.descriptor = _anonymous_file()
        os.truncate(self.descriptor, _SIZE)
        self._memory = mmap.mmap(self.descriptor, _SIZE)

    def given(self) -> None:
        """Close the descriptor, after another process has taken it."""
        os.close(self.descriptor)

    def read(self) -> Place:
        """The last notes of the worker."""
        return Place(*(_text(self._memory[part]) for part in (_SIDE, _STEP, _KIND, _CASE)))

    def close(self) -> None:
        """Release the memory."""
        self._memory.close()


_noted: mmap.mmap | None = None


def shine(descriptor: int) -> None:
    """From now on, write the notes of this process to the memory behind `descriptor`."""
    global _noted
    _noted = mmap.mmap(descriptor, _SIZE)
    os.close(descriptor)


def left() -> None:
    """Call `returned` when foreign code is left: a process that foreign code forked reports its return and ends."""
    if returned is not None:
        returned()


returned: Callable[[], None] | None = None
"""The function that ends a process that was forked inside foreign code; None in every other process."""


def note_side(side: str) -> None:
    """Note whose code runs: `reference` or `candidate`."""
    if _noted is not None:
        _noted[_SIDE] = _padded(side, _SIDE)


def note_step(step: str) -> None:
    """Note the step in words, such as `while it was imported`."""
    if _noted is not None:
        _noted[_STEP] = _padded(step, _STEP)


def note_kind(kind: str) -> None:
    """Note the kind of the pair."""
    if _noted is not None:
        _noted[_KIND] = _padded(kind, _KIND)


def note_case(case: str) -> None:
    """Note the id of the case."""
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
