"""The coverage of evidence: every file and package behind a verdict, and in words each gap."""

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from equivcheck.pairs.pair import Pair
from equivcheck.report.implementation_files import closure, definitions, modules_of
from equivcheck.report.installed_packages import packages_of
from equivcheck.report.model import Package
from equivcheck.report.provenance import digests, package_files
from equivcheck.runtime.file_access import Access
from equivcheck.runtime.source_files import (
    CHANGED,
    MOST_BYTES,
    file_of,
    hash_of,
    is_compiled,
    is_equivcheck,
    is_installed,
)

__all__ = ["Covered", "covered_by"]

_MOST_FILES, _MOST_TOTAL_BYTES = 2000, 2**30  # of data
_CACHES = frozenset((".git", ".cache", ".hypothesis", ".pytest_cache", ".mypy_cache", ".nv", ".triton", "__pycache__"))
_MOST_NAMED = 3


@dataclass(frozen=True)
class Covered:
    """Hashes of files by their part in the run, packages by name, and the gaps in words."""

    files: Mapping[str, Mapping[str, str]]
    packages: Mapping[str, Package] = field(default_factory=dict)
    not_covered: tuple[str, ...] = ()

    @classmethod
    def of(cls, plain: Mapping[str, Any]) -> "Covered":
        """The inverse of `plain`."""
        return cls(
            plain["files"],
            {name: Package(**package) for name, package in plain["packages"].items()},
            tuple(plain["not_covered"]),
        )

    def plain(self) -> dict[str, Any]:
        """The same as data for JSON, with one more hash for each part."""
        return {
            "files": {part: dict(hashes) for part, hashes in self.files.items()},
            "sources": digests(self.files),
            "packages": {name: asdict(package) for name, package in self.packages.items()},
            "not_covered": list(self.not_covered),
        }

    def and_later(self, later: "Covered") -> "Covered":
        """This with the additions of `later`; entries of both keep their values of here, which is what ran."""
        files = {part: {**hashes, **self.files.get(part, {})} for part, hashes in later.files.items()}
        return Covered(files, {**later.packages, **self.packages}, later.not_covered)


def covered_by(subject: Pair, access: Access) -> Covered:
    """The source files of equivcheck and of the pair, files that foreign code loaded and read, packages by version.

    Modules and data files are covered if they lie below the folder of the run, or below the package of the pair; a file
    that is in no package counts with its folder.
    """
    root = access.root
    pair = {"reference": modules_of(subject.reference), "candidate": modules_of(subject.candidate)}
    defining = [module for given in (subject.reference, subject.candidate) for module in definitions(given)]
    trees = {root, *(_tree(file, module.__name__) for module in defining if (file := _foreign(file_of(module))))}
    trees.discard(Path(root.anchor))
    loaded = {Path(file) for file in access.loaded if _below(Path(file), trees)}
    loaded |= set(closure(module for file, module in access.modules.items() if file in loaded))
    sources = {file for modules in pair.values() for file in modules}
    packages, left_out, stray = packages_of(sources | loaded)
    loaded = (loaded | set(stray)) - sources
    data, too_much = _data(access, trees, sources | loaded)
    files = {
        "equivcheck": package_files(),
        **{role: _hashes(modules, access) for role, modules in pair.items()},
        "loaded": _hashes(loaded, access),
        "read": {access.name_of(file): sha for file, sha in data},
    }
    left_out += [
        f"the sources of {access.name_of(file)}, which is compiled"
        for file in sorted(sources | loaded)
        if is_compiled(file.name)
    ]
    left_out += [f"the sources of {name}, which is compiled" for name in files["read"] if is_compiled(name)]
    early = sorted({m.__name__ for m in defining if m.__name__ in access.known and _foreign(file_of(m))})
    left_out += [f"what {name} read while it was imported, which was before the run" for name in early]
    return Covered(files, packages, (*left_out, *too_much, *_beyond(access, trees)))


def _hashes(files: Iterable[Path], access: Access) -> dict[str, str]:
    return {access.name_of(file): hash_of(file) for file in sorted(files)}


def _foreign(file: Path | None) -> Path | None:
    return None if file is None or is_installed(str(file)) or is_equivcheck(str(file)) else file


def _tree(file: Path, name: str) -> Path:
    """The folder of the outermost package of a module of this name; the folder of its file if it is in none."""
    inside = name.count(".") + (file.name == "__init__.py")
    return file.parents[max(0, inside - 1)]


def _below(file: Path, trees: Iterable[Path]) -> bool:
    return any(file.is_relative_to(tree) for tree in trees)


def _data(access: Access, trees: set[Path], sources: set[Path]) -> tuple[list[tuple[Path, str]], list[str]]:
    """Each data file below the trees that was read, with its hash; in words those that are too large or too many."""
    hashed: list[tuple[Path, str]] = []
    left_out: list[str] = []
    total = beyond = 0
    for file, (changed_ns, size) in _read(access):
        if file in sources or not _below(file, trees):
            continue
        total += size
        if size > MOST_BYTES:
            left_out.append(f"{access.name_of(file)}, which was read: it is larger than {MOST_BYTES // 2**20} MiB")
        elif changed_ns > access.began_ns:
            left_out.append(f"{access.name_of(file)}, which was read: it was written while the pair ran")
        elif len(hashed) >= _MOST_FILES or total > _MOST_TOTAL_BYTES:
            beyond += 1
        else:
            status = file.stat()
            same = (status.st_mtime_ns, status.st_size) == (changed_ns, size)
            hashed.append((file, hash_of(file) if same else CHANGED))
    return hashed, left_out + ([f"{beyond} more files that were read: they are too many"] if beyond else [])


def _beyond(access: Access, trees: set[Path]) -> Iterator[str]:
    """In words the sources of data that no hash covers: files elsewhere, and other machines."""
    elsewhere = [str(file) for file, _ in _read(access) if not _below(file, trees)]
    if elsewhere:
        yield f"files outside of the project that were read: {_some(elsewhere)}"
    if access.connected:
        yield f"what the network answered: {_some(sorted(access.connected))}"


def _read(access: Access) -> list[tuple[Path, tuple[int, int]]]:
    """The files that were read and still exist, without caches and files that the run has written."""
    read = {Path(os.path.realpath(file)): status for file, status in access.read.items() if file not in access.written}
    return sorted(
        (f, s) for f, s in read.items() if f.is_file() and not is_installed(str(f)) and not _is_cached(f, access)
    )


def _is_cached(file: Path, access: Access) -> bool:
    parts = file.relative_to(access.root).parts if file.is_relative_to(access.root) else file.parts
    return any(part in _CACHES or part.startswith("torchinductor_") for part in parts)


def _some(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
