"""A worker: it answers the supervisor's questions about one pair, a line of JSON each, until the socket is closed."""

import atexit
import importlib
import json
import os
import socket
import sys
import threading
import warnings
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

try:
    import resource
except ImportError:  # Windows has no such module
    resource = None  # type: ignore[assignment]

import torch

from equivcheck.errors import DeviceLost, ToolError, UsageError
from equivcheck.pairs.loading import line_of, load
from equivcheck.pairs.sides import current_side, place_of
from equivcheck.report import streams
from equivcheck.runtime import beacon, clock
from equivcheck.runtime.exits import as_error, interrupts_are_foreign
from equivcheck.runtime.file_access import watch_this_process
from equivcheck.worker.judge import Judge
from equivcheck.worker.judging import Judging

__all__ = ["INSIDE", "serve"]

INSIDE = "EQUIVCHECK_WORKER"
"""The environment variable that is set in a worker: equivcheck is not started inside of one."""

_LOST = 70  # the exit status of a process that has lost its GPU


class _Channel:
    """The socket to the supervisor, as whole lines of JSON; a process that was forked from this one may not use it."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket, self._process = connection, os.getpid()
        self._lock = threading.Lock()
        self.case = ""  # the case that is run
        self._file = connection.makefile("rb")

    def read(self) -> dict[str, Any] | None:
        """The next question; None if the other end is closed."""
        line = self._file.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def write(self, **message: Any) -> None:
        """Send a message. A fork that has returned from code under test says so, and ends here."""
        if os.getpid() != self._process:
            self.returned()
        with self._lock:
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def forked(self) -> None:
        """Prepare a process that was forked from this one: it may run code under test, and must not return from it."""
        beacon.returned = self.returned

    def returned(self) -> None:
        """Report that code under test has returned in a second process, and end this one."""
        with suppress(OSError):
            message = {"forked": os.getpid(), "case": self.case, "side": current_side()}
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        os._exit(0)

    def began(self, case: str, work: float) -> None:
        """Report which case is about to be run, and a measure of its work."""
        self.case = case
        self.write(case=case, work=work)


def serve(connection: socket.socket, place: int) -> None:
    """Answer until the supervisor has gone, or asks for the end.

    Args:
        connection: The socket to the supervisor.
        place: The descriptor of the memory in which this process notes its step.
    """
    channel = _Channel(connection)
    beacon.shine(place)
    atexit.register(_last, channel)  # registered before handlers of the pair, and so run after them
    os.register_at_fork(after_in_child=channel.forked)
    interrupts_are_foreign()
    first = channel.read()
    if first is None:
        return
    _begin(first)
    judging: list[Judging] = []
    access = watch_this_process()
    judge = Judge(
        access,
        began=channel.began,
        ended=lambda outcome: channel.write(outcome=outcome.plain(), peak=_peak_bytes(), **_spent()),
    )
    while (question := channel.read()) is not None:
        name, arguments = question["ask"], question["with"]
        if name == "end":
            channel.write(answer=None)
            return
        try:
            with clock.in_part(clock.REST):
                answer = _answered(name, arguments, judge, judging)
        except DeviceLost as error:
            channel.write(lost=str(error), side=error.side)
            os._exit(_LOST)
        except UsageError as error:
            channel.write(error="usage", message=str(error))
        except ToolError as error:
            channel.write(error="tool", message=str(error))
        except BaseException as error:
            channel.write(error="other", message=_description(error))
        else:
            channel.write(answer=answer, **_spent())


def _answered(name: str, arguments: Mapping[str, Any], judge: Judge, judging: list[Judging]) -> Any:
    if name == "clock":
        return _keep_time(**arguments)
    if name == "devices":
        return _devices(**arguments)
    if name == "setup":
        return _set_up(**arguments)
    if name == "look":
        return judging.append(Judging())
    if name == "judging":
        return judging[0].changed()
    if name == "folder":
        return _folder()
    return getattr(judge, name)(**arguments)


def _begin(first: Mapping[str, Any]) -> None:
    """Take the supervisor's folder, environment, `sys.path`, arguments and threads."""
    streams.renew()
    os.environ.clear()
    os.environ.update(first["environment"])
    os.environ[INSIDE] = str(os.getpid())
    with suppress(OSError):
        os.chdir(first["folder"])
    sys.path[:] = first["path"]
    sys.argv[:] = first["arguments"]
    importlib.invalidate_caches()
    warnings.simplefilter("ignore")  # each worker would print them again
    torch.set_num_threads(first["threads"])


def _devices(device: str, checks: Any, profile: str, dtypes: Any) -> dict[str, Any]:
    """The device by its full name, its free memory, the greatest number of cases of such a run, and devices like it."""
    from equivcheck.engine.plan import estimated_cases
    from equivcheck.runtime.device import find_device, type_of

    where = find_device(device)
    row = type_of(where)
    cases = estimated_cases(checks, profile, dtypes)
    others = {"alike": row.alike(where), "visible": row.visible}
    return {"device": str(where), "free": row.free_bytes(where), "cases": cases, **others}


def _set_up(spec: str) -> None:
    """Call the function behind an import string, before the pair is imported."""
    function = load(spec)
    if not callable(function):
        raise UsageError(f"setup={spec!r} is {type(function).__name__}, which cannot be called: give a function")
    try:
        function()
    except BaseException as error:
        raised = as_error(error) or error
        raise UsageError(f"setup={spec!r} raised {type(raised).__name__}: {line_of(raised)}") from error


def _keep_time(wanted: bool) -> None:
    """Begin to count where the time of this process goes, or end it."""
    (clock.start if wanted else clock.stop)()


def _spent() -> dict[str, Any]:
    """The seconds since the last message that had them, as a part of a message; empty without a clock."""
    seconds = clock.drained()
    return {} if seconds is None else {"spent": seconds}


def _peak_bytes() -> int:
    """The peak of the memory of this process."""
    if resource is None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _folder() -> str:
    try:
        return os.getcwd()
    except OSError:
        return ""


def _description(error: BaseException) -> str:
    return f"{type(error).__name__}: {line_of(error)[:300]} ({place_of(error)})"


def _last(channel: _Channel) -> None:
    """End the process, as the last handler of atexit: those of the pair have run, and nobody waits for the rest."""
    with suppress(OSError, ValueError):
        channel.write(ended=True)
    streams.flush()
    os._exit(0)
