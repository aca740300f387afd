"""The provenance of a verdict: the device, the environment, and the source files that it was reached with."""

import platform
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from equivcheck.report.implementation_files import files_of
from equivcheck.runtime.device import type_of
from equivcheck.runtime.source_files import digest_of, hash_of

if TYPE_CHECKING:
    import torch

__all__ = ["BESIDE_THE_VERDICT", "digests", "environment", "is_of_the_verdict", "package_files", "sources"]

BESIDE_THE_VERDICT = ("__main__.py", "bench/", "cli/", "engine/gate/", "pytest_plugin/", "report/")
"""Files that only start a run, render its report or judge evidence.

The hash leaves them out: evidence must not go stale because a table is drawn differently."""

OF_THE_VERDICT = (
    "report/case_outcomes.py",
    "report/catalogue.py",
    "report/chosen_checks.py",
    "report/deviations.py",
    "report/diagnosis.py",
    "report/implementation_files.py",
    "report/installed_packages.py",
    "report/levels.py",
    "report/model.py",
    "report/outcomes.py",
    "report/provenance.py",
    "report/shard.py",
    "report/time_spent.py",
)
"""Files of `report/` that are hashed all the same: they make the verdict, or collect its provenance."""

_PACKAGE = Path(__file__).parents[1]


def environment(device: "torch.device") -> dict[str, str]:
    """The facts that a verdict may depend on besides the source: versions, platform, threads and precision."""
    import hypothesis
    import torch

    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "hypothesis": hypothesis.__version__,
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
        **type_of(device).environment(device),
    }


def package_files(package: Path = _PACKAGE) -> dict[str, str]:
    """SHA-256 of each source file of equivcheck that a verdict depends on (`is_of_the_verdict`)."""
    names = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    return {name: hash_of(path) for name, path in sorted(names.items()) if is_of_the_verdict(name)}


def is_of_the_verdict(name: str) -> bool:
    """Whether a verdict depends on the source file of this name, relative to the package."""
    return name in OF_THE_VERDICT or not name.startswith(BESIDE_THE_VERDICT)


def digests(files: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """One SHA-256 for each part of `files` that has a file."""
    return {part: digest_of(hashes.items()) for part, hashes in files.items() if hashes}


def sources(reference: Any, candidate: Any, package: Path = _PACKAGE) -> dict[str, str]:
    """One SHA-256 each for equivcheck (`package_files`), for the reference and for the candidate (`files_of`)."""
    files = {
        "equivcheck": package_files(package),
        "reference": files_of(reference),
        "candidate": files_of(candidate),
    }
    return digests(files)
