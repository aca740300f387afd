"""Installed packages: those that source files import, their versions, and a hash of their files."""

import functools
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path

from equivcheck.report.implementation_files import imported_names
from equivcheck.report.model import Package
from equivcheck.runtime.source_files import digest_of, file_of, hash_of, is_compiled, is_installed

__all__ = ["content_of", "installed", "packages_of", "version_of"]

_MOST_BYTES, _MOST_FILES = 32 * 2**20, 5000
_APART = ("torch", "equivcheck")  # torch is compared by its version alone, and equivcheck by each source file


def packages_of(files: Iterable[Path]) -> tuple[dict[str, Package], list[str], list[Path]]:
    """The installed packages that these source files import or belong to, and what no hash covers.

    Returns:
        The packages by name; the parts of them that are not covered, in words; and the files of modules that are
        installed and belong to no package.
    """
    packages: dict[str, Package] = {}
    left_out: list[str] = []
    stray: list[Path] = []
    known = None
    for name in sorted(_outside(files)):
        if not _is_installed(name):
            continue  # of the project, or installed to be edited: covered file by file
        known = _distributions(tuple(sys.path)) if known is None else known
        if name not in known:
            stray += _files_under(name)
        for distribution in known.get(name, ()):
            if distribution not in packages and distribution not in _APART:
                with suppress(PackageNotFoundError):
                    sha, why = content_of(distribution)
                    packages[distribution] = Package(version_of(distribution), sha)
                    left_out += [f"the files of the package {distribution}: {why}"] if why else []
    return packages, left_out, stray


def version_of(distribution: str) -> str:
    """The version of an installed package; empty where it is not installed."""
    try:
        return str(importlib.metadata.version(distribution))
    except PackageNotFoundError:
        return ""


def content_of(distribution: str) -> tuple[str, str]:
    """One SHA-256 of all files of an installed package, or an empty text and the reason why they are not hashed."""
    listed = _files_of(importlib.metadata.distribution(distribution))
    files = {name: path for name, path in listed if path.is_file()}
    if not files:
        return "", "it has no list of them"
    if any(is_compiled(name) for name in files):
        return "", "some are compiled, so only its version is compared"
    if len(files) > _MOST_FILES or sum(path.stat().st_size for path in files.values()) > _MOST_BYTES:
        return "", "they are too many, so only its version is compared"
    return digest_of((name, hash_of(path)) for name, path in files.items()), ""


def installed(packages: Mapping[str, Package]) -> dict[str, Package]:
    """Those of these packages that are installed here, in the versions and with the hashes of here."""
    here = {}
    for name, package in packages.items():
        if version := version_of(name):
            here[name] = Package(version, content_of(name)[0] if package.sha256 and version == package.version else "")
    return here


def _outside(files: Iterable[Path]) -> set[str]:
    """The top-level names that these files import, and those that the installed ones among them belong to."""
    files = set(files)
    names = {name.partition(".")[0] for file in files for name in imported_names(file)}
    if any(is_installed(str(file)) for file in files):
        names |= {
            name.partition(".")[0]
            for name, module in list(sys.modules.items())
            if (file := file_of(module)) in files and is_installed(str(file))
        }
    return names - sys.stdlib_module_names - set(_APART)


def _is_installed(name: str) -> bool:
    module = sys.modules.get(name)
    file = file_of(module)
    if file is None:
        with suppress(ImportError, ValueError, AttributeError):
            spec = importlib.util.find_spec(name)
            places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
            return any(is_installed(place) for place in places if place)
        return False
    return is_installed(str(file))


@functools.lru_cache(maxsize=8)
def _distributions(_path: tuple[str, ...]) -> Mapping[str, list[str]]:
    return {name: sorted(set(owners)) for name, owners in importlib.metadata.packages_distributions().items()}


def _files_of(distribution: Distribution) -> Iterator[tuple[str, Path]]:
    for file in distribution.files or ():
        apart = file.parts[0] == ".." or file.parts[0].endswith((".dist-info", ".egg-info"))
        if not apart and file.suffix != ".pyc":
            yield file.as_posix(), Path(str(file.locate()))


def _files_under(name: str) -> list[Path]:
    modules = [module for other, module in list(sys.modules.items()) if other.partition(".")[0] == name]
    return [file for module in modules if (file := file_of(module)) and file.suffix == ".py"]
