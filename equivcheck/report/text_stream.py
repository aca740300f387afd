"""A stream of text by its descriptor, on which nothing that the tool writes can fail unnoticed, or end the run."""

import io
import os
import select
from contextlib import suppress
from typing import TextIO

__all__ = ["Stream", "put"]


class Stream(io.TextIOBase, TextIO):
    """A stream by its descriptor, on which writing raises nothing: the first failure is kept, and nothing is written after it.

    A reader that has closed a pipe early is no failure.
    """

    encoding: str = "utf-8"

    def __init__(self, descriptor: int | None, name: str, encoding: str = "utf-8") -> None:
        self.failure: OSError | None = None
        self._descriptor, self._name, self.encoding = descriptor, name, encoding
        self._unread = False

    @property
    def name(self) -> str:
        """How a person calls it."""
        return self._name

    def fileno(self) -> int:
        """The descriptor; an OSError where the stream was closed from the beginning."""
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
        if not isinstance(text, str):  # click asks streams so whether they take bytes
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
            except BlockingIOError:  # somebody else has made the pipe so
                select.select([], [self._descriptor], [])


def put(stream: TextIO, text: str) -> None:
    """Write `text` to `stream`; an OSError where that fails, a reader that has left early apart."""
    with suppress(BrokenPipeError):
        stream.write(text)
        stream.flush()
    if isinstance(stream, Stream) and stream.failure is not None:
        raise stream.failure
