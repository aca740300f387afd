"""The process that workers are forked from: it imports torch and equivcheck once, and never code under test.

It reads from the socket whose number is its argument: `start`, with the ends of a worker's socket and memory, and
`kill`. It answers which process was started, and how each ended. When the other end is closed, it ends all workers.
"""

import ctypes
import json
import os
import select
import signal
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

_SUBREAPER, _PARENT_DEATH = 36, 1  # of Linux's prctl
_MESSAGE = 65536


class Nursery:
    """The workers that run, by their numbers."""

    def __init__(self, control: socket.socket) -> None:
        """Start no worker yet."""
        self._control = control
        self._workers: dict[int, int] = {}  # process -> number
        self._wake, woken = os.pipe()
        os.set_blocking(woken, False)
        os.set_blocking(self._wake, False)
        signal.set_wakeup_fd(woken)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        """Start and kill workers on request until the other end is closed."""
        text = b""
        while True:
            waiting: list[Any] = [self._control, self._wake]
            ready, _, _ = select.select(waiting, [], [])
            if self._wake in ready:
                with suppress(BlockingIOError):
                    os.read(self._wake, _MESSAGE)
                self._reap()
            if self._control not in ready:
                continue
            try:
                data, descriptors, _, _ = socket.recv_fds(self._control, _MESSAGE, 2)
            except OSError:
                data, descriptors = b"", []
            if not data:
                break
            *lines, text = (text + data).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if "start" in message:
                    self._start(message["start"], descriptors)
                elif "kill" in message:
                    self._kill(message["kill"])
        for number in list(self._workers.values()):
            self._kill(number)
        self._kill_strays()

    def _start(self, number: int, descriptors: list[int]) -> None:
        sys.stdout.flush()
        process = os.fork()
        if not process:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._control.close()
            _begin_worker(os.getppid())
            from equivcheck.worker.serve import serve

            connection, place = descriptors
            serve(socket.socket(fileno=connection), place)
            sys.exit(0)
        with suppress(OSError):
            os.setpgid(process, process)  # both processes do so: either may be first
        for descriptor in descriptors:
            os.close(descriptor)
        self._workers[process] = number
        self._say(started=number, process=process)

    def _kill(self, number: int) -> None:
        for process, other in self._workers.items():
            if other == number:
                with suppress(OSError):
                    os.killpg(process, signal.SIGKILL)
                with suppress(OSError):
                    os.kill(process, signal.SIGKILL)

    def _reap(self) -> None:
        ended = []
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not process:
                break
            if process in self._workers:
                ended.append((process, os.waitstatus_to_exitcode(status)))
        for process, status in ended:
            number = self._workers.pop(process)
            with suppress(OSError):  # the processes that it has started end with it
                os.killpg(process, signal.SIGKILL)
            self._kill_strays()
            self._say(ended=number, status=status)

    def _kill_strays(self) -> None:
        """End the orphans of workers: processes whose parents have gone become children of this one, on Linux."""
        for folder in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, ValueError, IndexError):
                process = int(folder.name)
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                if parent == os.getpid() and process not in self._workers:
                    os.kill(process, signal.SIGKILL)

    def _say(self, **message: int) -> None:
        with suppress(OSError):
            self._control.sendall(json.dumps(message).encode() + b"\n")


def _begin_worker(parent: int) -> None:
    with suppress(OSError):
        os.setpgid(0, 0)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _control_process(_PARENT_DEATH, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    with suppress(OSError):  # if memory runs out, the system ends this process first
        Path("/proc/self/oom_score_adj").write_text("1000")


def _control_process(option: int, value: int) -> None:
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _import_all() -> None:
    """Import all modules of equivcheck, so that no worker has to; foreign code is not imported."""
    import importlib
    import pkgutil

    import equivcheck

    for module in pkgutil.walk_packages(equivcheck.__path__, "equivcheck."):
        if module.name.rpartition(".")[2] != "__main__":
            with suppress(ImportError):  # of an optional package
                importlib.import_module(module.name)


def main() -> None:
    """Run the process that workers are forked from."""
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _control_process(_PARENT_DEATH, signal.SIGKILL)
    _control_process(_SUBREAPER, 1)
    if os.getppid() != int(sys.argv[2]):
        return
    _import_all()
    Nursery(control).run()


if __name__ == "__main__":
    main()
