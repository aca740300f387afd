"""Imports among files in the folder of a file that is given by its path: that folder comes before all other modules."""

import builtins
import hashlib
import os
import pkgutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from equivcheck.runtime.module_files import installed, made_of, same

__all__ = ["FileLoader", "Folder", "join"]

_OF_THE_TOOL = frozenset(name.partition(".")[0] for name in sys.modules)  # this module is imported before any pair


class Folder:
    """A folder whose files import each other, even if other modules have the same names."""

    def __init__(self, path: str, watched: bool) -> None:
        self.path = path
        names = [module.name for module in pkgutil.iter_modules([path])] if watched else []
        self.watched = not all(self.is_natural(name) for name in names if self.file(name))

    def file(self, top: str) -> str | None:
        """The Python file of this folder for `import top`; None if there is none."""
        spec = PathFinder.find_spec(top, [self.path])
        return spec.origin if spec is not None and (spec.origin or "").endswith(".py") else None

    def is_natural(self, top: str) -> bool:
        """Whether a plain `import top` gives the file of this folder now."""
        file, known = self.file(top), sys.modules.get(top)
        if known is not None:
            return same(getattr(known, "__file__", None), file)
        for finder in sys.meta_path:
            if finder is not _finder:
                with suppress(Exception):  # a finder of foreign code
                    spec = finder.find_spec(top, None)
                    if spec is not None:
                        return same(spec.origin, file)
        return False

    def actual(self, top: str) -> str:
        """The name of the module of this folder's file for `top`: itself, or a private one."""
        file = self.file(top)
        return top if file is None or self.is_natural(top) else self.private(top, file)

    def private_name(self, top: str) -> str:
        """A name for `top` that no other module has."""
        return f"{top.replace('.', '_')}_{hashlib.sha256(os.path.join(self.path, top).encode()).hexdigest()[:8]}"

    def private(self, top: str, file: str) -> str:
        """The private name of `top`, under which `file` can be imported from now on."""
        name = self.private_name(top)
        _finder.private[name] = _spec(name, file, self)
        return name

    def imports(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        """`__import__` for the files of this folder."""
        top, dot, rest = name.partition(".")
        file = None if level else self.file(top)
        if file is None or self.is_natural(top) or self._itself(top, globals or {}):
            return builtins.__import__(name, globals, locals, fromlist or (), level)
        if top in sys.stdlib_module_names or (top in _OF_THE_TOOL and installed(sys.modules[top].__file__)):
            # `import torch` beside a file torch.py means torch, and `from torch import MyAttention` the file
            module = builtins.__import__(name, globals, locals, fromlist or (), level)
            if all(part == "*" or hasattr(module, part) for part in fromlist or ()):
                return module
        return builtins.__import__(self.private(top, file) + dot + rest, globals, locals, fromlist or (), level)

    def _itself(self, top: str, importer: Mapping[str, Any]) -> bool:
        return importer.get("__name__") == self.private_name(top) and "__path__" not in importer


class FileLoader(SourceFileLoader):
    """Loads a file whose imports look into its folder first."""

    def __init__(self, name: str, path: str, folder: Folder) -> None:
        super().__init__(name, path)
        self.folder = folder

    def exec_module(self, module: ModuleType) -> None:
        # of this module alone: the imports of other modules stay as they are
        module.__dict__["__builtins__"] = {**vars(builtins), "__import__": self.folder.imports}
        super().exec_module(module)


class _OneModule(Loader):
    """Gives the existing module of a file under a second name."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # an import puts the second name there


class _Finder(MetaPathFinder):
    """Finds modules in the folders of files that were given by their paths."""

    def __init__(self) -> None:
        self.private: dict[str, ModuleSpec] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """A spec of the file's existing module, or one whose loader imports from its folder; None for others."""
        if fullname in self.private:
            return self.private[fullname]
        if fullname in sys.modules:  # it is being reloaded
            return None
        folder = _folder_of(fullname, path)
        spec = PathFinder.find_spec(fullname, path) if folder is not None else None
        if folder is None or spec is None or not (spec.origin or "").endswith(".py"):
            return None
        assert spec.origin is not None
        if path is None and not same(spec.origin, folder.file(fullname)):
            return None
        known = made_of(spec.origin)
        if known:
            return ModuleSpec(fullname, _OneModule(known[0]), origin=spec.origin)
        return _spec(fullname, spec.origin, folder) if folder.watched else None


_folders: dict[str, Folder] = {}
_finder = _Finder()


def join(path: Path, watched: bool = True) -> Folder:
    """Make a folder importable, and return it."""
    if _finder not in sys.meta_path:
        sys.meta_path.insert(0, _finder)
    if str(path) not in sys.path:
        sys.path.append(str(path))
    if str(path) not in _folders or (watched and not _folders[str(path)].watched):
        _folders[str(path)] = Folder(str(path), watched)
    return _folders[str(path)]


def _folder_of(fullname: str, path: Sequence[str] | None) -> Folder | None:
    """The joined folder that has the module; for a submodule, the one that contains its package."""
    if path is None:
        return next((folder for folder in _folders.values() if folder.file(fullname)), None)
    entries = [entry for entry in path if not installed(entry)]
    around = [f for f in _folders.values() if any(Path(entry).is_relative_to(f.path) for entry in entries)]
    return min(around, key=lambda folder: len(folder.path), default=None)


def _spec(name: str, file: str, folder: Folder) -> ModuleSpec:
    inside = [os.path.dirname(file)] if os.path.basename(file) == "__init__.py" else None
    loader = FileLoader(name, file, folder)
    spec = spec_from_file_location(name, file, loader=loader, submodule_search_locations=inside)
    assert spec is not None
    return spec
