"""Standard output and standard error of the tool, kept apart from those of the code under test.

with private(stay=True) as streams:      # the tool writes to streams.text() and streams.notes()
    with captured():
        ...                              # text printed here is shown at the end, escaped, as the pair's
    if streams.failed():
        ...                              # some of the output could not be written
"""

import atexit
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TextIO

from equivcheck.report.text_stream import Stream

if TYPE_CHECKING:  # a slow import, for which a command that captures nothing does not wait
    from equivcheck.report.printed import Printer

__all__ = ["DEBUG", "Streams", "captured", "current", "flush", "left_alone", "private", "renew"]

DEBUG = "EQUIVCHECK_DEBUG"
"""The environment variable that leaves the streams alone, for a debugger in the code under test."""


class Streams:
    """The two streams of a process, as the tool writes to them."""

    def __init__(self, out: TextIO, err: TextIO) -> None:
        self.out, self.err = out, err
        self._reserved: list[TextIO] = []

    def reserve(self, stream: TextIO) -> None:
        """Keep `stream` for a report that is written there: no other text may stand beside it."""
        self._reserved.append(stream)

    def text(self) -> TextIO:
        """The stream for tables and verdicts: standard output, or standard error if a report goes there."""
        return self._first(self.out, self.err)

    def notes(self) -> TextIO:
        """The stream for progress, errors and the output of the pair: standard error if it is free."""
        return self._first(self.err, self.out)

    def _first(self, *streams: TextIO) -> TextIO:
        return next((stream for stream in streams if stream not in self._reserved), None) or io.StringIO()

    def say(self, line: str) -> None:
        """Write a line to the first stream that takes it: standard error, else standard output."""
        for stream in (self.err, self.out):
            if stream not in self._reserved:
                with suppress(BrokenPipeError):
                    stream.write(f"{line}\n")
                    stream.flush()
                if not isinstance(stream, Stream) or stream.failure is None:
                    return

    def failed(self) -> bool:
        """Whether anything could not be written to one of the two; the other one gets a message."""
        failed = [s for s in (self.out, self.err) if isinstance(s, Stream) and s.failure is not None]
        for stream in failed:
            assert stream.failure is not None
            if stream not in self._reserved:  # else the writer of the report has said so
                reason = stream.failure.strerror or stream.failure
                self.say(
                    f"equivcheck: {stream.name}: cannot be written ({reason}); "
                    "redirect it to a place that can be written to"
                )
        return bool(failed)


class _ProcessStreams(Streams):
    """The streams of the tool as private copies of the process's descriptors, which the code under test writes to."""

    printer: "Printer | None" = None

    def __init__(self, stay: bool) -> None:
        closed = _fill()
        out, err = (
            Stream(None if closed[at] else os.dup(at), name, getattr(stream, "encoding", None) or "utf-8")
            for at, name, stream in ((1, "standard output", sys.stdout), (2, "standard error", sys.stderr))
        )
        super().__init__(out, err)
        self.stay, self._process = stay, os.getpid()
        self._in = os.dup(0)
        if stay:
            atexit.register(self.close)  # registered before those of the code under test, and so run after them

    def begin(self) -> None:
        """Give descriptors and `sys` streams to the code under test, until the process ends or `close` is called."""
        if self.printer is None:
            from equivcheck.report.printed import Printer

            self.printer = Printer(_descriptor_of(self.notes()))
            for source, target in ((self.printer.out, 1), (self.printer.err, 2), (os.open(os.devnull, os.O_RDONLY), 0)):
                os.dup2(source, target)
                os.close(source)
        renew()

    def close(self) -> None:
        """Show the output after the run, and restore the descriptors of the process."""
        if self.printer is None or os.getpid() != self._process:  # a forked child ends nothing
            return
        flush()
        self.printer.end()
        self.printer = None
        if not self.stay:
            for source, target in ((self._in, 0), (_descriptor_of(self.out), 1), (_descriptor_of(self.err), 2)):
                os.dup2(source, target)


_current: list[Streams] = []


def current() -> Streams:
    """The streams that the tool writes to now."""
    return _current[-1] if _current else Streams(sys.stdout, sys.stderr)


@contextmanager
def private(*, stay: bool) -> Iterator[Streams]:
    """Inside, the tool writes to streams that no code under test reaches.

    If `sys.stdout` or `sys.stderr` is not the process's, both are left alone, and nothing is captured.

    Args:
        stay: Code that runs after this, such as a handler of `atexit`, does not get the streams back.
    """
    before = sys.stdin, sys.stdout, sys.stderr
    if not (_is(sys.stdout, 1) and _is(sys.stderr, 2)):
        _current.append(Streams(sys.stdout, sys.stderr))
        try:
            yield _current[-1]
        finally:
            _current.pop()
        return
    flush()
    streams = _ProcessStreams(stay)
    _current.append(streams)
    sys.stdout, sys.stderr = streams.out, streams.err
    try:
        yield streams
    finally:
        _current.pop()
        if stay and streams.printer is not None:
            # Python flushes these at its end, and changes the exit status if that fails
            sys.stdout, sys.stderr = Stream(1, "standard output"), Stream(2, "standard error")
        else:
            streams.close()
            sys.stdin, sys.stdout, sys.stderr = before


@contextmanager
def captured() -> Iterator[None]:
    """Inside, the output of this process and of its children is collected; it is shown at the end as the pair's.

    Raises:
        UsageError: The process that reads the output cannot be started.
    """
    streams = current()
    if not isinstance(streams, _ProcessStreams) or os.name != "posix":
        yield
    elif os.environ.get(DEBUG):
        with left_alone():
            yield
    else:
        streams.begin()
        try:
            yield
        except (EOFError, KeyboardInterrupt):
            sys.stderr = io.StringIO()  # takes the empty line that click writes, which is not the pair's
            raise
        finally:
            flush()
            assert streams.printer is not None
            streams.notes().write(streams.printer.collected())


@contextmanager
def left_alone() -> Iterator[None]:
    """Inside, the code under test has the streams of the process: for a debugger."""
    tool = sys.stdout, sys.stderr
    if isinstance(current(), _ProcessStreams):
        sys.stdout, sys.stderr = sys.__stdout__ or tool[0], sys.__stderr__ or tool[1]
    try:
        yield
    finally:
        flush()
        sys.stdout, sys.stderr = tool


def renew() -> None:
    """Make new streams of Python and of C on the descriptors 0, 1 and 2; they write each line at once, for a crash."""
    sys.stdin = os.fdopen(0, encoding="utf-8", errors="replace", closefd=False)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = os.fdopen(descriptor, "w", 1, "utf-8", errors="backslashreplace", closefd=False)
        setattr(sys, name, stream)
    with suppress(Exception):  # a C library may have other names for its streams
        import ctypes

        library = ctypes.CDLL(None)
        library.setvbuf(ctypes.c_void_p.in_dll(library, "stdout"), None, 1, 0)  # 1: _IOLBF


def _is(stream: TextIO | None, descriptor: int) -> bool:
    """Whether it is the process's stream of this number; Python has None for one that was closed at the start."""
    if stream is None:
        return True
    with suppress(Exception):
        return stream.fileno() == descriptor
    return False


def _fill() -> dict[int, bool]:
    """Open those of the three descriptors that are closed, so that no file takes their numbers.

    Returns:
        For each descriptor, whether it was closed.
    """
    closed = dict.fromkeys((0, 1, 2), False)
    for descriptor in closed:
        try:
            os.fstat(descriptor)
        except OSError:
            closed[descriptor] = True
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it is the lowest that is free
    return closed


def _descriptor_of(stream: TextIO) -> int:
    with suppress(OSError):
        return stream.fileno()
    return os.open(os.devnull, os.O_WRONLY)


def flush() -> None:
    """Flush the buffered output of Python and C."""
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        with suppress(Exception):  # closed, or replaced by the code under test
            if stream is not None:
                stream.flush()
    if "ctypes" in sys.modules:
        with suppress(Exception):
            sys.modules["ctypes"].CDLL(None).fflush(None)
