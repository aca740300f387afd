"""Whether the packages and the torch that a report was made with are those that are installed here."""

import re
from collections.abc import Iterator

from equivcheck.engine.gate.sources import AGAIN
from equivcheck.errors import UsageError
from equivcheck.report.installed_packages import installed, version_of
from equivcheck.report.model import Report

__all__ = ["differences", "edited", "other_torch", "required_torch"]


def required_torch(text: str) -> str:
    """`text`, if it is a version of torch such as 2.11.

    Raises:
        UsageError: It is none.
    """
    if not re.fullmatch(r"\d+(\.\d+)*(\+\w+)?", text):
        raise UsageError(f"--require-torch {text!r}: a version such as 2.11, 2.11.0 or 2.11.0+cu130 is allowed")
    return text


def edited(report: Report) -> Iterator[str]:
    """The packages of the report whose files were changed here, while their version is the same."""
    here = installed(report.packages)
    for name, package in report.packages.items():
        now = here.get(name)
        if now and now.version == package.version and package.sha256 and now.sha256 != package.sha256:
            yield (
                f"stale: the package {name} {package.version} has other files here than in the run; {AGAIN}, "
                "or install it anew"
            )


def differences(report: Report) -> Iterator[str]:
    """The differences between the environment here and that of the run: torch and packages, by their versions."""
    torch, torch_here = report.environment.get("torch", ""), version_of("torch")
    if _public(torch) != _public(torch_here):
        yield f"the run was made with torch {torch or 'of no version'}, and here is {torch_here or 'none'}"
    here = installed(report.packages)
    for name, package in report.packages.items():
        if name not in here:
            yield f"the run was made with the package {name} {package.version}, and here is none"
        elif here[name].version != package.version:
            yield f"the run was made with the package {name} {package.version}, and here is {here[name].version}"


def other_torch(report: Report, required: str) -> Iterator[str]:
    """The reason to refuse a report that was made with another torch than the required one."""
    made_with = report.environment.get("torch", "")
    if not _is(made_with, required):
        made_with = made_with or "none that is recorded"
        yield f"torch {required} is required, and the run was made with {made_with}; {AGAIN} with it"


def _is(version: str, required: str) -> bool:
    if "+" in required:
        return version == required
    parts = required.split(".")
    return _public(version).split(".")[: len(parts)] == parts


def _public(version: str) -> str:
    """A version without its suffix for a device: evidence comes from a machine with a GPU."""
    return version.partition("+")[0]
