"""Source files: their owner, the names under which they are recorded and looked up elsewhere, and their hashes."""

import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterable
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from types import ModuleType

__all__ = [
    "CHANGED",
    "MOST_BYTES",
    "digest_of",
    "file_of",
    "find",
    "hash_of",
    "is_compiled",
    "is_equivcheck",
    "is_installed",
    "name_of",
]

CHANGED = "changed while the pair ran"
"""Stands in place of the hash of a file that changed after it was read: no file has this hash."""

MOST_BYTES = 256 * 2**20
"""The largest file that is hashed."""

_COMPILED = (*EXTENSION_SUFFIXES, ".so", ".pyd", ".dll", ".dylib")
_SITES = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")


def _folders(paths: Iterable[str]) -> tuple[str, ...]:
    """Each folder as given and with links resolved, with a separator at its end."""
    return tuple(
        {f"{spelled}{os.sep}" for path in paths for spelled in (os.path.abspath(path), os.path.realpath(path))}
    )


_INSTALLED = _folders(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_EQUIVCHECK = _folders([os.path.dirname(os.path.dirname(os.path.abspath(__file__)))])


def is_installed(file: str) -> bool:
    """Whether the file of this absolute path belongs to Python or to an installed package."""
    return file.startswith(_INSTALLED) or any(site in file for site in _SITES)


def is_equivcheck(file: str) -> bool:
    """Whether the file of this absolute path belongs to equivcheck, whose source files are hashed separately."""
    return file.startswith(_EQUIVCHECK)


def is_compiled(file: str) -> bool:
    """Whether the file of this name is compiled code, whose bytes differ from machine to machine."""
    return file.endswith(_COMPILED)


def file_of(module: ModuleType | None) -> Path | None:
    """The file of a module, with links resolved; None if it has none."""
    # getattr would make a lazy module load
    file = vars(module).get("__file__") if isinstance(module, ModuleType) else None
    return Path(os.path.realpath(file)) if isinstance(file, str) and os.path.isfile(file) else None


def hash_of(file: Path) -> str:
    """SHA-256 of the bytes of a file, with the line ends of Unix.

    A file larger than `MOST_BYTES` is read only up to one byte more: its hash differs from that of every recorded file.
    """
    with file.open("rb") as opened:
        return hashlib.sha256(opened.read(MOST_BYTES + 1).replace(b"\r\n", b"\n")).hexdigest()


def digest_of(files: Iterable[tuple[str, str]]) -> str:
    """One SHA-256 of names and hashes of files, which does not depend on their order."""
    digest = hashlib.sha256()
    for name, sha in sorted(files):
        digest.update(f"{name}\0{sha}\0".encode())
    return digest.hexdigest()


def name_of(file: Path, root: Path, path: Iterable[str] | None = None) -> str:
    """The name under which `find` finds a file on another machine.

    The name is relative to `root` if the file lies below it, else to an entry of `path` (by default `sys.path`), else
    it starts at `root` and goes up.
    """
    if file.is_relative_to(root) and not is_installed(str(file)):
        return file.relative_to(root).as_posix()
    folders = [Path(entry).resolve() for entry in (sys.path if path is None else path) if entry]
    around = [folder for folder in folders if folder != Path(folder.anchor) and file.is_relative_to(folder)]
    if around:
        return file.relative_to(max(around, key=lambda folder: len(folder.parts))).as_posix()
    return Path(os.path.relpath(file, root)).as_posix()


def find(name: str, root: Path) -> Path | None:
    """The file that `name_of` named `name`, below `root` or an entry of `sys.path`; None if there is none."""
    for folder in (root, *map(Path, filter(None, sys.path))):
        if (folder / name).is_file():
            return folder / name
    return None
