"""The module of a Python file that is given by its path, under the name that neighbouring files use to import it.

The name is the file's stem, or the dotted name in a package. If another module has that name, or `import` would find
another module under it, the file gets a private name that shadows nothing; neighbouring files still import it by its
stem.
"""

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType

from equivcheck.errors import UsageError
from equivcheck.runtime.folder_imports import FileLoader, join
from equivcheck.runtime.module_files import made_of

__all__ = ["existing", "imported_as", "module_of"]


def existing(path: Path) -> Path:
    """The path of a file, with the links in its folder resolved.

    Raises:
        UsageError: There is no such file.
    """
    path = path.expanduser()
    path = Path(os.path.realpath(path.parent), path.name)
    if not path.is_file():
        raise UsageError(f"there is no file {str(path)!r}: give the path of a Python file before the colon")
    return path


def module_of(path: Path) -> ModuleType:
    """The module of a file, which is loaded unless a module of it exists.

    Args:
        path: The file; a link counts as its target, under the name of the link.

    Raises:
        UsageError: There is no such file, or it has two modules already.
        BaseException: The file raised it when it ran.
    """
    path = existing(path)
    known = made_of(str(path))
    if len(known) > 1:
        names = " and as ".join(module.__name__ for module in known)
        raise UsageError(f"{path} is loaded twice, as {names}: import it everywhere by one of these names")
    if known:
        return known[0]
    root, parts = _tree(path)
    folder = join(root)
    for other in {path.parent, path.resolve().parent} - {root}:
        join(other, watched=False)
    if any("." in part for part in parts):  # no import statement can name such a file
        return importlib.import_module(folder.private(parts[0], str(path)))
    return importlib.import_module(".".join((folder.actual(parts[0]), *parts[1:])))


def imported_as(name: str, importer: ModuleType) -> ModuleType | None:
    """The module that `importer` has imported under `name`; None if it is not loaded."""
    loader = getattr(getattr(importer, "__spec__", None), "loader", None)
    if isinstance(loader, FileLoader):
        top, dot, rest = name.partition(".")
        private = sys.modules.get(loader.folder.private_name(top) + dot + rest)
        if private is not None:
            return private
    return sys.modules.get(name)


def _tree(path: Path) -> tuple[Path, list[str]]:
    """The folder that contains the file's outermost package, and the parts of the module's name below it."""
    parts, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file() and folder.name.isidentifier():
        parts, folder = [folder.name, *parts], folder.parent
    if len(parts) > 1 and parts[-1] == "__init__":
        parts.pop()
    return folder, parts
