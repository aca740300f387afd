"""The modules of a file: two modules of one file have two sets of classes with one source."""

import os
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import ModuleType

__all__ = ["files", "installed", "made_of", "made_twice", "same"]

_MAIN = ("__main__", "__mp_main__")
_INSTALLED = tuple(sysconfig.get_path(name) for name in ("purelib", "platlib"))


def files() -> Iterator[tuple[ModuleType, str]]:
    """Each loaded module once, with its file."""
    for module in {id(module): module for module in list(sys.modules.values())}.values():
        file = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(file, str) and isinstance(module, ModuleType):
            yield module, file


def made_of(path: str) -> list[ModuleType]:
    """The modules of a file; the main program only if it is the only one."""
    modules = [module for module, file in files() if same(file, path)]
    return [module for module in modules if module.__name__ not in _MAIN] or modules[:1]


def made_twice(among: Iterable[Path] | None = None) -> list[str]:
    """A sentence for each file that has two modules, without installed files.

    Args:
        among: The files to look at; None for those of all loaded modules.
    """
    wanted = None if among is None else {os.path.realpath(file) for file in among}
    modules_by_inode: dict[tuple[int, int], list[tuple[str, str]]] = {}
    for module, file in files():
        included = wanted is None or os.path.realpath(file) in wanted
        if included and module.__name__ not in _MAIN and not installed(file):
            with suppress(OSError):
                status = os.stat(file)
                entry = (module.__name__, os.path.basename(file))
                modules_by_inode.setdefault((status.st_dev, status.st_ino), []).append(entry)
    return [
        f"{' and '.join(name for name, _ in modules)} are two modules of one file, {modules[0][1]}: "
        "a class of one is none of the other's; import it everywhere by one name"
        for modules in modules_by_inode.values()
        if len(modules) > 1
    ]


def same(file: str | None, other: str | None) -> bool:
    """Whether the two paths are one file; False if one is missing."""
    try:
        return file is not None and other is not None and (file == other or os.path.samefile(file, other))
    except OSError:
        return False


def installed(file: str | None) -> bool:
    """Whether a file or a folder belongs to an installed package."""
    return file is not None and (
        bool({"site-packages", "dist-packages"} & set(Path(file).parts)) or file.startswith(_INSTALLED)
    )
