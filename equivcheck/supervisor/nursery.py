"""The process that workers are forked from, as the supervisor sees it, and the pipes of their output."""

import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from equivcheck.errors import UsageError
from equivcheck.report.printed import Excerpt, shown
from equivcheck.runtime.beacon import Beacon
from equivcheck.supervisor.workers import Worker

__all__ = ["Nursery"]

_CHUNK = 1 << 16
_GRACE_S = 2.0  # between the end of a process's messages and its exit


class Nursery:
    """The process that workers are forked from, and the pipes of their output."""

    def __init__(self, *, streams: bool = True) -> None:
        """Start it.

        Args:
            streams: Whether the output of workers is captured; else it goes to the streams of this process.

        Raises:
            UsageError: It cannot be started.
        """
        self.streams = streams
        self.selector = selectors.DefaultSelector()
        self._workers: dict[int, Worker] = {}
        self._numbers = 0
        self._killed: dict[int, tuple[str, str]] = {}
        self._text = b""
        self.dead = False
        self._excerpts = (Excerpt(), Excerpt())
        pipes: list[int] = []
        try:
            self._control, theirs = socket.socketpair()
            theirs.set_inheritable(True)
            if streams:
                for excerpt in self._excerpts:
                    reads, writes = os.pipe()
                    os.set_blocking(reads, False)
                    pipes.append(writes)
                    self.selector.register(reads, selectors.EVENT_READ, excerpt)
            out, err = pipes or (None, None)
            self._process = subprocess.Popen(
                _command(theirs.fileno()),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                cwd=Path(__file__).parents[2],
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C on the terminal is not meant for it
            )
        except OSError as error:
            raise UsageError(
                f"no process can be started that runs the pair ({error.strerror or error}); end other processes, or "
                "raise the limits of this one, such as `ulimit -n`"
            ) from None
        theirs.close()
        for pipe in pipes:
            os.close(pipe)
        self._control.setblocking(False)
        self.selector.register(self._control, selectors.EVENT_READ, self)

    def start(self, hear: Callable[[Worker, dict[str, Any]], None], first: Mapping[str, Any]) -> Worker:
        """Start a worker.

        Args:
            hear: A function that is given each message of the worker that is no answer.
            first: The folder, environment, `sys.path`, arguments and threads that it begins with.

        Raises:
            UsageError: The system cannot start one more process.
            ConnectionError: The process that workers are forked from has ended.
        """
        self._numbers += 1
        try:
            ours, theirs = socket.socketpair()
            beacon = Beacon()
            ours.setblocking(False)
            worker = Worker(self._numbers, ours, beacon, hear)
            self._control.setblocking(True)
            socket.send_fds(
                self._control,
                [json.dumps({"start": worker.number}).encode() + b"\n"],
                [theirs.fileno(), beacon.descriptor],
            )
            self._control.setblocking(False)
            theirs.close()
            beacon.given()
            self.selector.register(ours, selectors.EVENT_READ, worker)
        except ConnectionError:
            self._lose()
            raise
        except OSError as error:
            raise UsageError(
                f"no process can be started that runs the pair ({error.strerror or error}); run with fewer --jobs, or "
                "raise the limits of this process, such as `ulimit -n`"
            ) from None
        self._workers[worker.number] = worker
        worker.send(first)
        return worker

    def end(self, worker: Worker, why: str, description: str = "") -> None:
        """Kill a worker and the processes that it has started.

        Args:
            worker: The worker.
            why: `hang`, `memory`, `lost`, `fork` or `closed`; empty if its work is done.
            description: How it ended, as the end of a sentence.
        """
        self._killed.setdefault(worker.number, (why, description))
        with suppress(OSError):
            self._control.setblocking(True)
            self._control.sendall(json.dumps({"kill": worker.number}).encode() + b"\n")
            self._control.setblocking(False)

    @property
    def workers(self) -> list[Worker]:
        """The workers that have not ended."""
        return list(self._workers.values())

    def step(self, seconds: float) -> None:
        """Handle the messages that arrive, and wait for them no longer than so many seconds."""
        for key, _ in self.selector.select(max(0.0, seconds)):
            if isinstance(key.data, Worker):
                try:
                    key.data.read()
                except EOFError:  # the process that it was forked from reports its exit status
                    with suppress(KeyError, ValueError):
                        self.selector.unregister(key.fileobj)
                    key.data.closed_s = time.monotonic()
            elif isinstance(key.data, Excerpt):
                self._take(key.fileobj, key.data)
            else:
                self._hear()
        for worker in list(self._workers.values()):
            if worker.closed_s is not None and time.monotonic() - worker.closed_s > _GRACE_S:
                self.end(worker, "closed")

    def _take(self, pipe: Any, excerpt: Excerpt) -> None:
        try:
            data = os.read(pipe, _CHUNK)
        except BlockingIOError:
            return
        if data:
            excerpt.add(data)
        else:
            self.selector.unregister(pipe)
            os.close(pipe)

    def _hear(self) -> None:
        try:
            data = self._control.recv(_CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._lose()
            return
        *lines, self._text = (self._text + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "started" in message:
                self._workers[message["started"]].process = message["process"]
            elif message["ended"] in self._workers:
                self._gone(self._workers[message["ended"]], message["status"])

    def _lose(self) -> None:
        """Record that the process has died, and its workers with it."""
        if not self.dead:
            self.dead = True
            self.selector.unregister(self._control)
            for worker in list(self._workers.values()):
                self._gone(worker, -signal.SIGKILL)

    def _gone(self, worker: Worker, status: int) -> None:
        with suppress(EOFError, OSError, KeyError, ValueError):  # its last messages
            while worker.alive:
                before = len(worker.text)
                worker.read()
                if len(worker.text) == before:
                    break
        with suppress(KeyError, ValueError):
            self.selector.unregister(worker.connection)
        del self._workers[worker.number]
        worker.gone(status, *self._killed.pop(worker.number, ("", "")))

    def printed(self) -> str:
        """The output of workers since the last call, marked as the pair's."""
        for key in list(self.selector.get_map().values()):
            if isinstance(key.data, Excerpt):
                for _ in range(1024):
                    before = key.data.size
                    self._take(key.fileobj, key.data)
                    if key.data.size == before:
                        break
        out, err = self._excerpts
        text = shown(out, err)
        for excerpt in self._excerpts:
            excerpt.clear()
        return text

    def close(self) -> None:
        """End the process, and with it all of its workers."""
        self._control.close()
        try:
            self._process.wait(10.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for key in list((self.selector.get_map() or {}).values()):
            if isinstance(key.data, Excerpt):
                os.close(cast(int, key.fileobj))
            elif isinstance(key.data, Worker):
                key.data.connection.close()
        self.selector.close()


def _command(descriptor: int) -> list[str]:
    given = [str(descriptor), str(os.getpid())]
    # -W, -X and others, as multiprocessing passes them on
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    if sys.flags.safe_path:  # nothing is imported from the working folder then
        place = str(Path(__file__).parents[2])
        line = f"import sys; sys.path.insert(0, {place!r}); from equivcheck.worker.__main__ import main; main()"
        return [sys.executable, *flags, "-c", line, *given]
    return [sys.executable, *flags, "-m", "equivcheck.worker", *given]
