"""What foreign code uses beside its own source while it is imported and run: files that it reads, modules, connections.

Python announces each of these by an audit event. Code is foreign that belongs neither to equivcheck nor to an installed package:
what it has an installed package read for it counts as read by it.
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
_REALTIME_COARSE = 5  # Linux's clock of that name, for which Python has none
_SYSTEM = tuple(f"{os.sep}{name}{os.sep}" for name in ("proc", "sys", "dev"))


def _file_time_ns() -> int:
    """The time that a file system gives a file which is written now: it ticks some hundred times a second."""
    return time.clock_gettime_ns(_REALTIME_COARSE) if sys.platform == "linux" else time.time_ns()


@dataclass(frozen=True)
class Seen:
    """What was seen in one process, as plain data that another one can be sent."""

    read: dict[str, tuple[int, int]] = field(default_factory=dict)
    written: frozenset[str] = frozenset()
    loaded: frozenset[str] = frozenset()
    connected: frozenset[str] = frozenset()

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Seen":
        """What `plain` made a mapping of."""
        return cls(
            {file: (changed, size) for file, (changed, size) in plain["read"].items()},
            frozenset(plain["written"]),
            frozenset(plain["loaded"]),
            frozenset(plain["connected"]),
        )

    def plain(self) -> dict[str, Any]:
        """As what JSON can hold."""
        return {
            "read": {file: list(status) for file, status in self.read.items()},
            "written": sorted(self.written),
            "loaded": sorted(self.loaded),
            "connected": sorted(self.connected),
        }


@dataclass
class Access:
    """What foreign code has used since the pair was about to be loaded."""

    root: Path = field(default_factory=working_folder.current)  # now: foreign code may change the folder
    path: tuple[str, ...] = field(
        default_factory=lambda: tuple(sys.path)
    )  # a file's folder is added where it is loaded
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
        """All of it until now."""
        return Seen(dict(self.read), frozenset(self.written), self.loaded, frozenset(self.connected))

    def add(self, seen: Seen) -> None:
        """Add what another process has seen."""
        self.read = {**seen.read, **self.read}
        self.written |= seen.written
        self.connected |= seen.connected
        self.loaded_elsewhere |= seen.loaded

    def name_of(self, file: Path) -> str:
        """The name by which a file is recorded."""
        return name_of(file, self.root, self.path)

    @property
    def modules(self) -> dict[Path, ModuleType]:
        """The modules that were loaded in this process since, by file, less those of equivcheck and of installed packages."""
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
        """The files of such modules, loaded in this process or in another one."""
        return frozenset(map(str, self.modules)) | self.loaded_elsewhere


_access: Access | None = None
_listening = False


@contextmanager
def watched() -> Iterator[Access]:
    """Inside, what foreign code uses is noted in the Access that is given."""
    global _access
    around, _access = _access, Access()
    _listen()
    try:
        yield _access
    finally:
        if around is not None:
            around.add(_access.seen())
        _access = around


def watch_this_process() -> Access:
    """Note what foreign code uses from here to the end of this process, which works for another one."""
    global _access
    _access = Access()
    _listen()
    return _access


def _listen() -> None:
    global _listening
    if _listening:  # a hook cannot be taken away again
        return
    _listening = True
    with suppress(Exception):  # where this torch has no such thing, it may look into the hook, which costs time alone
        _hide_from_compile(_hook.__code__)
    sys.addaudithook(_hook)


def _hide_from_compile(code: CodeType) -> None:
    """Keep torch.compile, which looks into all that runs beneath a compiled function, out of this code and what it calls."""
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
    except Exception:  # what is raised here would be raised in the foreign code
        return


def _opened(access: Access, args: tuple[Any, ...]) -> None:
    path, *how = args
    if not isinstance(path, str | bytes):  # a file that is open already
        return
    file = os.path.abspath(os.fsdecode(path))
    if file.startswith(_SYSTEM) or is_installed(file) or is_equivcheck(file):
        return
    if len(how) == 2 and isinstance(how[1], int) and how[1] & _WRITES:
        access.written.add(file)
    elif file not in access.read and _is_foreign(sys._getframe(2)):
        status = os.stat(file)
        if S_ISREG(status.st_mode):
            access.read[file] = status.st_mtime_ns, status.st_size


def _moved(access: Access, args: tuple[Any, ...]) -> None:
    access.written.add(os.path.abspath(os.fsdecode(args[1])))


def _connected(access: Access, args: tuple[Any, ...]) -> None:
    address = args[1]
    if isinstance(address, tuple) and _is_foreign(sys._getframe(2)):  # a text is the name of a socket on this machine
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
