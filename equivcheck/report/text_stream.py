"""A stream of text on a descriptor: a failure to write is recorded, and never ends the run."""

import io
import os
import select
from contextlib import suppress
from typing import TextIO

__all__ = ["Stream", "put"]


class Stream(io.TextIOBase, TextIO):
    """A stream on a descriptor, on which writing raises nothing.

    The first failure is kept in `failure`, and nothing is written after it. A reader that has closed a pipe early is no
    failure.
    """

    encoding: str = "utf-8"

    def __init__(self, descriptor: int | None, name: str, encoding: str = "utf-8") -> None:
        self.failure: OSError | None = None
        self._descriptor, self._name, self.encoding = descriptor, name, encoding
        self._unread = False

    @property
    def name(self) -> str:
        """The name for messages, such as "standard output"."""
        return self._name

    def fileno(self) -> int:
        """The descriptor; an OSError if the stream was closed at the start."""
        if self._descriptor is None:
            raise io.UnsupportedOperation("it is closed")
        return self._descriptor

    def isatty(self) -> bool:
        """Whether it is a terminal."""
        return self._descriptor is not None and os.isatty(self._descriptor)

    def writable(self) -> bool:
        """Always true."""
        return True

    def write(self, text: str) -> int:
        """Write all of `text` at once."""
        if not isinstance(text, str):  # click tries bytes on a stream to learn its type
            raise TypeError(f"{type(text).__name__} was given, and text is allowed")
        if text and not self._unread and self.failure is None:
            try:
                self._write(text.encode(self.encoding, "backslashreplace"))
            except BrokenPipeError:
                self._unread = True
            except OSError as error:
                self.failure = error
        return len(text)

    def _write(self, data: bytes) -> None:
        if self._descriptor is None:
            raise OSError("it is closed")
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:  # another process has made the pipe non-blocking
                select.select([], [self._descriptor], [])


def put(stream: TextIO, text: str) -> None:
    """Write `text` to `stream`; an OSError if that fails, unless a reader has closed the pipe early."""
    with suppress(BrokenPipeError):
        stream.write(text)
        stream.flush()
    if isinstance(stream, Stream) and stream.failure is not None:
        raise stream.failure
