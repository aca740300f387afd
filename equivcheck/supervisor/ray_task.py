"""A command of equivcheck as a task of Ray: it runs in a process of its own, so that Ray's worker runs no foreign code.

Plain text goes in and comes out: the arguments, and a JSON object with what the command wrote.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress

__all__ = ["CORES", "cores_of_run", "environment_of", "run_command", "travels"]

CORES = "EQUIVCHECK_CORES"
"""The environment variable that says how many cores a run counts with, in the place of all cores of the machine."""

_TRAVELS = (
    "CUDA_",
    "CUBLAS",
    "CUDNN",
    "NVIDIA_TF32",
    "OMP_",
    "MKL_",
    "KMP_",
    "OPENBLAS_",
    "TORCH",
    "PYTORCH",
    "PYTHON",
)
_TRAVELS_TOO = ("TRITON_", "EQUIVCHECK_")
_OF_A_MACHINE = ("CUDA_VISIBLE_DEVICES", "CUDA_HOME", "CUDA_PATH", "PYTHONHOME", "PYTHONUSERBASE", "PYTHONEXECUTABLE")
_NOT_MEANT = ("RAY_", "GITHUB_", "EQUIVCHECK_DEBUG")  # the caller answers them: a step of a workflow has one summary
_GRACE_S = 5.0


def cores_of_run() -> int:
    """How many cores a run counts with: those of the task of Ray that it is, else all cores of the machine."""
    given = os.environ.get(CORES, "")
    return int(given) if given.isdecimal() and int(given) else os.cpu_count() or 1


def travels(name: str) -> bool:
    """Whether an environment variable has the caller's value on every node."""
    return name.startswith(_TRAVELS + _TRAVELS_TOO) and name not in _OF_A_MACHINE and not name.startswith(_NOT_MEANT)


def environment_of(node: Mapping[str, str], caller: Mapping[str, str], cores: int) -> dict[str, str]:
    """The environment of the command.

    Args:
        node: That of Ray's worker: it has the paths of this machine, and the GPU that Ray has chosen.
        caller: That of the process that asked for the run.
        cores: How many cores the command may count with.
    """
    kept = {name: value for name, value in node.items() if not travels(name) and not name.startswith(_NOT_MEANT)}
    return {**kept, **{name: value for name, value in caller.items() if travels(name)}, CORES: str(cores)}


def run_command(arguments: Sequence[str], folder: str, caller: Mapping[str, str], cores: int) -> str:
    """Run the command line of equivcheck, and end it if this process ends, or the task is cancelled.

    Args:
        arguments: The arguments of `equivcheck`, of which `--json -` is one.
        folder: The folder in which to run it.
        caller: The environment variables of the caller that travel.
        cores: How many cores it may count with.

    Returns:
        As JSON its standard output, exit status, the last line of its standard error, and the name of this machine.
    """
    host = socket.gethostname()
    if not os.path.isdir(folder):
        reason = f"there is no folder {folder} on {host}; every node needs the same files under the same path"
        return json.dumps({"out": "", "status": 2, "reason": reason, "host": host})
    reads, writes = os.pipe()  # it reads the end of this process as the end of a file
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "equivcheck.cli.tethered", *arguments],
            stdin=reads,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=folder,
            env=environment_of(os.environ, caller, cores),
            text=True,
            encoding="utf-8",
            errors="backslashreplace",
        )
        try:
            out, err = process.communicate()
        finally:
            _end(process)
    finally:
        os.close(reads)
        os.close(writes)
    last = next((line for line in reversed(err.splitlines()) if line.strip()), "").removeprefix("equivcheck: ")
    reason = last if process.returncode >= 0 else f"its process was ended by signal {-process.returncode}"
    return json.dumps({"out": out, "status": process.returncode, "reason": reason, "host": host})


def _end(process: "subprocess.Popen[str]") -> None:
    """End the command in good order if it still runs: it ends its own workers."""
    if process.poll() is None:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
        process.kill()
        process.wait()
