"""Where a verdict comes from: the device, the environment, and the source that it was reached with."""

import platform
from collections.abc import Mapping
from pathlib import Path

import hypothesis
import torch

from equivcheck.pairs.pair import Subject
from equivcheck.report.implementation_files import files_of
from equivcheck.runtime.source_files import digest_of, hash_of

__all__ = ["BESIDE_THE_VERDICT", "device_name", "digests", "environment", "package_files", "sources"]

# What only starts a run or renders its report. Evidence must not go stale because a table is drawn differently, so these
# are left out of the hash. report/model.py is none of them: it makes the verdict of the results.
BESIDE_THE_VERDICT = (
    "__main__.py",
    "bench/__init__.py",
    "bench/gpu_state.py",
    "bench/memory.py",
    "bench/paired_timing.py",
    "bench/record.py",
    "bench/render.py",
    "bench/runner.py",
    "bench/workloads.py",
    "cli/__init__.py",
    "cli/bench.py",
    "cli/config.py",
    "cli/gate.py",
    "cli/main.py",
    "cli/options.py",
    "cli/progress.py",
    "cli/report.py",
    "cli/verify.py",
    "engine/gate/__init__.py",
    "engine/gate/coverage.py",
    "engine/gate/environment.py",
    "engine/gate/history.py",
    "engine/gate/sources.py",
    "engine/gate/verdict.py",
    "pytest_plugin/__init__.py",
    "pytest_plugin/suite.py",
    "report/__init__.py",
    "report/codec.py",
    "report/files.py",
    "report/github.py",
    "report/html.py",
    "report/junit.py",
    "report/markdown.py",
    "report/outputs.py",
    "report/page.py",
    "report/places.py",
    "report/plots.py",
    "report/printed.py",
    "report/schema.py",
    "report/streams.py",
    "report/table.py",
    "report/text_stream.py",
    "report/timings.py",
)
_PACKAGE = Path(__file__).parents[1]


def device_name(device: torch.device) -> str:
    """The device, on CUDA with the name of the GPU."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)


def environment(device: torch.device) -> dict[str, str]:
    """What a verdict may depend on besides the source: versions, platform, threads and precision."""
    found = {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "hypothesis": hypothesis.__version__,
        "platform": platform.platform(),
        "threads": str(torch.get_num_threads()),
        "float32 matmul precision": torch.get_float32_matmul_precision(),
    }
    if device.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(device)
        found["cuda"] = str(torch.version.cuda)
    return found


def package_files(package: Path = _PACKAGE) -> dict[str, str]:
    """SHA-256 of each source file of equivcheck that a verdict depends on: the package less `BESIDE_THE_VERDICT`."""
    names = {path.relative_to(package).as_posix(): path for path in package.rglob("*.py")}
    return {name: hash_of(path) for name, path in sorted(names.items()) if name not in BESIDE_THE_VERDICT}


def digests(files: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """One SHA-256 each for what `files` tells apart; nothing for what has no file."""
    return {part: digest_of(hashes.items()) for part, hashes in files.items() if hashes}


def sources(subject: Subject, package: Path = _PACKAGE) -> dict[str, str]:
    """SHA-256 of what a verdict is reached with: this package less `BESIDE_THE_VERDICT`, and the files of the pair."""
    files = {
        "equivcheck": package_files(package),
        "reference": files_of(subject.reference),
        "candidate": files_of(subject.candidate),
    }
    return digests(files)
