"""A worker as the supervisor sees it: its questions, their answers, and how it ended."""

import json
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from equivcheck.errors import ToolError, UsageError
from equivcheck.runtime.beacon import Beacon, Place

__all__ = ["Asked", "Worker", "result_of"]

_CHUNK = 1 << 16
_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096
_MOST_LINE = 1 << 28  # bytes of one message: a worker sends no longer one


@dataclass
class Asked:
    """A question to a worker, and its result: an answer, an error in words, or the end of the process."""

    name: str
    arguments: Mapping[str, Any]
    answer: Any = None
    error: tuple[str, str] | None = None  # its kind and its message
    status: int | None = None  # of the process that has ended
    why: str = ""  # the process was ended: `hang`, `memory`, `lost`, `fork`, `closed`
    description: str = ""  # how the process ended, as the end of a sentence
    place: Place = field(default_factory=Place)
    done: bool = False

    @property
    def died(self) -> bool:
        """Whether the process ended before it answered."""
        return self.status is not None or bool(self.why)


def result_of(asked: Asked) -> Any:
    """The answer to a question.

    Raises:
        UsageError: The worker raised one.
        ToolError: The worker raised another error.
    """
    if asked.error is None:
        return asked.answer
    kind, message = asked.error
    if kind == "usage":
        raise UsageError(message)
    raise ToolError(message)


@dataclass(eq=False)
class Worker:
    """One worker: its socket, its questions, and the case that it runs."""

    number: int
    connection: socket.socket
    beacon: Beacon
    hear: Callable[["Worker", dict[str, Any]], None]
    process: int | None = None
    waiting: deque[Asked] = field(default_factory=deque)
    current: Asked | None = None
    case: str = ""
    work: float = 0.0
    since: float = field(default_factory=time.monotonic)
    closed_s: float | None = None  # the time at which the end of its messages was seen
    ended: bool = False  # in good order: its handlers of atexit have run
    status: int | None = None
    why: str = ""  # it was ended: see `Asked`
    description: str = ""  # how it ended, as the end of a sentence
    place: Place = field(default_factory=Place)
    reported_side: str = ""  # the side that a lost GPU or a forked process belongs to, where the beacon is past it
    limit_s: float | None = None  # of its questions, if it has a special one
    took_s: float = 0.0  # between the last two messages
    check: str = ""  # the check whose case it runs
    shrinking: bool = False  # whether that case is one of shrinking
    gpu: str = ""  # the word for the GPU that it sees, where processes share several out
    history: list[Any] = field(default_factory=list)
    text: bytearray = field(default_factory=bytearray)

    @property
    def alive(self) -> bool:
        """Whether it may still answer."""
        return self.status is None

    @property
    def idle(self) -> bool:
        """Whether it has no question to answer."""
        return self.alive and self.current is None and not self.waiting

    @property
    def asked(self) -> list[Asked]:
        """The questions that are not yet answered."""
        return [asked for asked in (self.current, *self.waiting) if asked is not None]

    def ask(self, name: str, **arguments: Any) -> Asked:
        """Ask a question; the worker answers in order."""
        asked = Asked(name, arguments)
        if not self.alive:
            asked.status, asked.why, asked.description, asked.place = (
                self.status,
                self.why,
                self.description,
                self.place,
            )
            asked.done = True
            return asked
        self.waiting.append(asked)
        self.advance()
        return asked

    def advance(self) -> None:
        """Send the next question if the last one is answered."""
        if self.current is None and self.waiting and self.alive:
            self.current = self.waiting.popleft()
            self.case, self.since = "", time.monotonic()
            self.send({"ask": self.current.name, "with": dict(self.current.arguments)})

    def send(self, message: Mapping[str, Any]) -> None:
        """Send a message; if the process has ended, it is lost without an error."""
        with suppress(OSError):
            self.connection.setblocking(True)
            self.connection.sendall(json.dumps(message).encode() + b"\n")
        with suppress(OSError):
            self.connection.setblocking(False)

    def read(self) -> None:
        """Handle the messages that have arrived.

        Raises:
            EOFError: No more messages come.
        """
        try:
            data = self.connection.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or len(self.text) > _MOST_LINE:
            raise EOFError
        self.text += data
        while (at := self.text.find(b"\n")) >= 0:
            line = bytes(self.text[:at])
            del self.text[: at + 1]
            try:
                message = json.loads(line)
            except ValueError:  # code under test has written that line
                continue
            if isinstance(message, dict):
                self._take(message)

    def _take(self, message: dict[str, Any]) -> None:
        now = time.monotonic()
        self.took_s, self.since = now - self.since, now
        if "spent" in message:
            self.hear(self, {"spent": message.pop("spent")})
        if "forked" in message:
            self.hear(self, message)
        elif "case" in message:
            self.case, self.work = str(message["case"]), float(message.get("work") or 0.0)
        elif "ended" in message:
            self.ended = True
        elif self.current is not None and ("answer" in message or "error" in message):
            asked, self.current = self.current, None
            asked.answer = message.get("answer")
            if "error" in message:
                asked.error = (str(message["error"]), str(message.get("message")))
            asked.done = True
            self.case = ""
            self.advance()
        else:
            self.hear(self, message)

    def resident_bytes(self) -> int:
        """The memory of the process now; 0 if that cannot be read."""
        try:
            return int(Path(f"/proc/{self.process}/statm").read_text().split()[1]) * _PAGE
        except (OSError, ValueError, IndexError):
            return 0

    def gone(self, status: int, why: str = "", description: str = "") -> None:
        """Record that the process has ended."""
        if self.status is not None:
            return
        self.status, self.why, self.description = status, why, description
        noted = self.beacon.read()
        if self.reported_side:  # the process has gone on since
            noted = replace(noted, side=self.reported_side, step="", case=self.case or noted.case)
        self.place = place = noted
        for asked in (self.current, *self.waiting):
            if asked is not None and not asked.done:
                asked.status, asked.why, asked.description = status, asked.why or why, asked.description or description
                asked.place, asked.done = place, True
        self.current = None
        self.waiting.clear()
        self.beacon.close()
        self.connection.close()
