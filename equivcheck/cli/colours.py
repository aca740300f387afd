"""Whether a stream takes colours, and lines that move.

A terminal takes both, unless `TERM=dumb`. `NO_COLOR` leaves colours out, and `FORCE_COLOR` has them where there is no
terminal, such as in the log of a CI job; rich reads both variables itself.
"""

import os
from typing import Any, TextIO, cast

__all__ = ["moves", "with_colours"]


def moves(stream: TextIO) -> bool:
    """Whether lines on the stream can be written again: it is a terminal, and no dumb one."""
    return stream.isatty() and os.environ.get("TERM", "").lower() not in ("dumb", "unknown")


def with_colours(stream: TextIO) -> TextIO:
    """The stream, which passes for a terminal if colours are forced on it."""
    if stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("FORCE_COLOR", "0") in ("", "0"):
        return stream
    return cast(TextIO, _LikeATerminal(stream))


class _LikeATerminal:
    """A stream that says that it is a terminal, and is the same otherwise."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def isatty(self) -> bool:
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
