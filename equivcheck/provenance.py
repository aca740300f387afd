"""Where a verdict comes from: the device, the environment, and the source that it was reached with."""

import hashlib
import inspect
import platform
from contextlib import suppress
from pathlib import Path

import hypothesis
import torch

from equivcheck.subject import Subject

__all__ = ["BESIDE_THE_VERDICT", "device_name", "environment", "sources"]

# What only starts a run or renders its report. Evidence must not go stale because a table is drawn differently, so these
# are left out of the hash. report/model.py is none of them: it makes the verdict of the results.
BESIDE_THE_VERDICT = (
    "__main__.py",
    "bench.py",
    "bench_cli.py",
    "cli.py",
    "clocks.py",
    "config.py",
    "measure.py",
    "outputs.py",
    "peak.py",
    "progress.py",
    "pytest_plugin.py",
    "record.py",
    "report/__init__.py",
    "report/files.py",
    "report/json.py",
    "report/junit.py",
    "report/markdown.py",
    "report/speed.py",
    "report/table.py",
    "suite.py",
    "workload.py",
)
_PACKAGE = Path(__file__).parent


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


def sources(subject: Subject, package: Path = _PACKAGE) -> dict[str, str]:
    """SHA-256 of what a verdict is reached with: this package less `BESIDE_THE_VERDICT`, and the files of the pair."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package).as_posix()
        if name not in BESIDE_THE_VERDICT:
            digest.update(name.encode() + b"\0" + path.read_bytes())
    found = {"equivcheck": digest.hexdigest()}
    for role, factory in (("reference", subject.reference), ("candidate", subject.candidate)):
        with suppress(TypeError, OSError):
            source = inspect.getsourcefile(factory)
            if source:
                found[role] = hashlib.sha256(Path(source).read_bytes()).hexdigest()
    return found
