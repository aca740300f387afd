"""The files, modules and connections that foreign code uses while it is imported and run.

Python announces each of these by an audit event. Code is foreign if it belongs neither to equivcheck nor to an
installed package. A file that an installed package reads on behalf of foreign code counts as read by it.
"""

import importlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from stat import S_ISREG
from types import CodeType, FrameType, ModuleType
from typing import Any

from equivcheck.runtime import working_folder
from equivcheck.runtime.source_files import file_of, is_equivcheck, is_installed, name_of

__all__ = ["Access", "Seen", "watch_this_process", "watched"]

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_REALTIME_COARSE = 5  # the number of Linux's CLOCK_REALTIME_COARSE, which Python does not name
_SYSTEM = tuple(f"{os.sep}{name}{os.sep}" for name in ("proc", "sys", "dev"))


def _file_time_ns() -> int:
    """The time that a file system gives a file that is written now; it ticks a few hundred times a second."""
    return time.clock_gettime_ns(_REALTIME_COARSE) if sys.platform == "linux" else time.time_ns()


@dataclass(frozen=True)
class Seen:
    """The use of files, modules and connections by one process, as plain data for another process."""

    read: dict[str, tuple[int, int]] = field(default_factory=dict)
    written: frozenset[str] = frozenset()
    loaded: frozenset[str] = frozenset()
    connected: frozenset[str] = frozenset()

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Seen":
        """The inverse of `plain`."""
        return cls(
            {file: (changed, size) for file, (changed, size) in plain["read"].items()},
            frozenset(plain["written"]),
            frozenset(plain["loaded"]),
            frozenset(plain["connected"]),
        )

    def plain(self) -> dict[str, Any]:
        """The same as values that JSON can represent."""
        return {
            "read": {file: list(status) for file, status in self.read.items()},
            "written": sorted(self.written),
            "loaded": sorted(self.loaded),
            "connected": sorted(self.connected),
        }


@dataclass
class Access:
    """The use of files, modules and connections by foreign code since the start of this record."""

    root: Path = field(default_factory=working_folder.current)  # at the start: foreign code may change the folder
    # at the start: loading a file adds its folder
    path: tuple[str, ...] = field(default_factory=lambda: tuple(sys.path))
    began_ns: int = field(default_factory=_file_time_ns)
    known: frozenset[str] = field(default_factory=lambda: frozenset(sys.modules))
    read: dict[str, tuple[int, int]] = field(default_factory=dict)  # file -> time of change in ns, and size, when read
    written: set[str] = field(default_factory=set)
    connected: set[str] = field(default_factory=set)
    loaded_elsewhere: set[str] = field(default_factory=set)
    _modules: dict[Path, ModuleType] = field(default_factory=dict)
    _looked_at: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._looked_at |= self.known

    def seen(self) -> Seen:
        """The record so far."""
        return Seen(dict(self.read), frozenset(self.written), self.loaded, frozenset(self.connected))

    def add(self, seen: Seen) -> None:
        """Add the record of another process."""
        self.read = {**seen.read, **self.read}
        self.written |= seen.written
        self.connected |= seen.connected
        self.loaded_elsewhere |= seen.loaded

    def name_of(self, file: Path) -> str:
        """The name under which a file is recorded."""
        return name_of(file, self.root, self.path)

    @property
    def modules(self) -> dict[Path, ModuleType]:
        """The foreign modules that this process has loaded since the start of the record, by file."""
        for name, module in list(sys.modules.items()):
            if name in self._looked_at:
                continue
            self._looked_at.add(name)
            file = file_of(module)
            if file and not is_installed(str(file)) and not is_equivcheck(str(file)):
                self._modules[file] = module
        return self._modules

    @property
    def loaded(self) -> frozenset[str]:
        """The files of such modules, of this process and of those that were added."""
        return frozenset(map(str, self.modules)) | self.loaded_elsewhere


_access: Access | None = None
_listening = False


@contextmanager
def watched() -> Iterator[Access]:
    """Inside, record the use of files, modules and connections by foreign code in the Access that is yielded."""
    global _access
    outer, _access = _access, Access()
    _listen()
    try:
        yield _access
    finally:
        if outer is not None:
            outer.add(_access.seen())
        _access = outer


def watch_this_process() -> Access:
    """Record the use by foreign code from now to the end of this process, which works for another one."""
    global _access
    _access = Access()
    _listen()
    return _access


def _listen() -> None:
    global _listening
    if _listening:  # a hook cannot be removed
        return
    _listening = True
    with suppress(Exception):  # another torch may trace the hook, which costs nothing but time
        _hide_from_compile(_hook.__code__)
    sys.addaudithook(_hook)


def _hide_from_compile(code: CodeType) -> None:
    """Exclude this code, and the functions that it calls, from torch.compile."""
    eval_frame: Any = importlib.import_module("torch._C._dynamo.eval_frame")
    if hasattr(eval_frame, "set_code_exec_strategy"):
        skip = eval_frame._FrameAction.SKIP
        eval_frame.set_code_exec_strategy(code, eval_frame._FrameExecStrategy(skip, skip))
    else:
        eval_frame.skip_code(code)


def _hook(event: str, args: tuple[Any, ...]) -> None:
    if _access is None or event not in _EVENTS:
        return
    try:
        _EVENTS[event](_access, args)
    except Exception:  # an exception from here would be raised in the foreign code
        return


def _opened(access: Access, args: tuple[Any, ...]) -> None:
    path, *flags = args
    if not isinstance(path, str | bytes):  # the descriptor of an open file
        return
    file = os.path.abspath(os.fsdecode(path))
    if file.startswith(_SYSTEM) or is_installed(file) or is_equivcheck(file):
        return
    if len(flags) == 2 and isinstance(flags[1], int) and flags[1] & _WRITES:
        access.written.add(file)
    elif file not in access.read and _is_foreign(sys._getframe(2)):
        status = os.stat(file)
        if S_ISREG(status.st_mode):
            access.read[file] = status.st_mtime_ns, status.st_size


def _moved(access: Access, args: tuple[Any, ...]) -> None:
    access.written.add(os.path.abspath(os.fsdecode(args[1])))


def _connected(access: Access, args: tuple[Any, ...]) -> None:
    address = args[1]
    if isinstance(address, tuple) and _is_foreign(sys._getframe(2)):  # a text names a socket of this machine
        access.connected.add(str(address[0]))


_EVENTS = {
    "open": _opened,
    "ctypes.dlopen": _opened,
    "os.rename": _moved,
    "socket.connect": _connected,
}


def _is_foreign(frame: FrameType | None) -> bool:
    """Whether foreign code stands between this frame and the nearest one of equivcheck."""
    while frame is not None:
        file = frame.f_code.co_filename
        if is_equivcheck(file):
            return False
        if not file.startswith("<") and not is_installed(file):
            return True
        frame = frame.f_back
    return False
