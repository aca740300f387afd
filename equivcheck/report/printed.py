"""The output of the code under test: a separate process reads it, keeps an excerpt, and shows it as the pair's.

A thread cannot do this: C code that fills a pipe while it holds Python's lock would wait for the thread for ever. A
separate process can also show the output after the process under test has died.
"""

import json
import os
import select
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from equivcheck.errors import UsageError

__all__ = ["Excerpt", "Printer", "serve", "shown"]

FIRST_BYTES = LAST_BYTES = 8192  # of each stream
_CHUNK = 65536
_MOST_CHUNKS = 1024  # of one answer, so that a thread that never stops printing cannot delay it
_PREFIX = "| "  # the output never begins a line: `::error` at the beginning of one is a command to GitHub
_START = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from equivcheck.report.printed import serve; serve(*map(int, sys.argv[2:]))"
)


class Excerpt:
    """The first and the last bytes of a stream, and its numbers of bytes and lines."""

    def __init__(self) -> None:
        self._first, self._last = b"", b""
        self._bytes = self._breaks = 0
        self._ends_in_break = True

    def add(self, data: bytes) -> None:
        """Append bytes of the stream."""
        if not data:
            return
        self._bytes += len(data)
        self._breaks += data.count(b"\n")
        self._ends_in_break = data.endswith(b"\n")
        free = FIRST_BYTES - len(self._first)
        self._first += data[:free]
        self._last = (self._last + data[free:])[-LAST_BYTES:]

    @property
    def size(self) -> int:
        """The number of bytes of the stream."""
        return self._bytes

    def clear(self) -> None:
        """Drop all bytes."""
        self.__init__()  # type: ignore[misc]  # it begins again

    def section(self, heading: str) -> list[str]:
        """The lines under `heading`, each cleaned and behind a prefix; an empty list if nothing was printed."""
        if not self._bytes:
            return []
        count = self._breaks + (not self._ends_in_break)
        left_out = self._bytes - len(self._first) - len(self._last)
        if left_out:
            lines = [*_lines(self._first), f"({left_out} bytes are left out here)", *_lines(self._last)]
        else:
            lines = _lines(self._first + self._last)
        return [f"{heading} ({count} line{'s' if count != 1 else ''}):", *lines]


def _lines(data: bytes) -> list[str]:
    from equivcheck.report.clean_text import clean

    text = data.decode("utf-8", "backslashreplace")
    lines = text.removesuffix("\n").split("\n")
    return [(_PREFIX + clean(line.removesuffix("\r"))).rstrip() for line in lines]


def shown(out: Excerpt, err: Excerpt, when: str = "") -> str:
    """The excerpts of both streams as text that names the pair; empty if nothing was printed."""
    lines = out.section(f"printed by the pair{when}") + err.section(f"printed by the pair on standard error{when}")
    return "".join(f"{line}\n" for line in lines)


class Printer:
    """The process that reads the output, from the side of the process under test."""

    def __init__(self, last_resort: int) -> None:
        """Start the process.

        Args:
            last_resort: The descriptor that the process writes to at the end, or when this process has died.

        Raises:
            UsageError: The process cannot be started.
        """
        self._asks, answers = socket.socketpair()
        out, self.out = os.pipe()
        err, self.err = os.pipe()
        given = (answers.fileno(), out, err, last_resort)
        command = [sys.executable, "-I", "-S", "-c", _START, str(Path(__file__).parents[2]), *map(str, given)]
        none = subprocess.DEVNULL
        try:
            # a new session: Ctrl-C on the terminal does not reach it
            self._process = subprocess.Popen(
                command, stdin=none, stdout=none, stderr=none, cwd="/", pass_fds=given, start_new_session=True
            )
        except OSError as error:
            raise UsageError(
                f"no process can be started that reads what the pair prints ({error.strerror or error}); "
                "run with EQUIVCHECK_DEBUG=1, which leaves the streams alone"
            ) from None
        finally:
            answers.close()
            os.close(out)
            os.close(err)

    def collected(self) -> str:
        """The output since the last call, as text to show."""
        try:
            self._asks.sendall(b"c")
            with self._asks.makefile("rb") as answer:
                return str(json.loads(answer.readline()))
        except (OSError, ValueError):
            return "what the pair printed is lost: the process that read it has died\n"

    def end(self) -> None:
        """Have the process show the rest of the output, and wait for its end."""
        with suppress(OSError):
            self._asks.sendall(b"e")
        self._process.wait()
        self._asks.close()


def serve(control: int, out: int, err: int, last_resort: int) -> None:
    """Read the output until its end, and show the part that `collected` did not return: the process of a Printer."""
    asked = socket.socket(fileno=control)
    streams = {out: Excerpt(), err: Excerpt()}
    for descriptor in streams:
        os.set_blocking(descriptor, False)
    when, open_ones = "", set(streams)
    while True:
        ready, _, _ = select.select([control, *open_ones], [], [])
        open_ones -= {descriptor for descriptor in ready if descriptor in open_ones and not _read(descriptor, streams)}
        if control not in ready:
            continue
        request = b""
        with suppress(OSError):
            request = asked.recv(1)
        for descriptor in open_ones:
            _read(descriptor, streams, _MOST_CHUNKS)
        text = shown(streams[out], streams[err], when)
        if request != b"c":  # the end, or the other process has died
            _write(last_resort, text)
            return
        streams.update({out: Excerpt(), err: Excerpt()})
        when = " after the run"
        with suppress(OSError):
            asked.sendall(json.dumps(text).encode() + b"\n")


def _read(descriptor: int, streams: dict[int, Excerpt], chunks: int = 1) -> bool:
    """Read the bytes that are available; return False at the end of the stream."""
    with suppress(BlockingIOError):
        for _ in range(chunks):
            data = os.read(descriptor, _CHUNK)
            if not data:
                return False
            streams[descriptor].add(data)
    return True


def _write(descriptor: int, text: str) -> None:
    data = text.encode("utf-8", "backslashreplace")
    with suppress(OSError):
        while data:
            data = data[os.write(descriptor, data) :]
