"""The clocks, power and temperature of a GPU, read by its driver's tool: a time depends on them beside the work."""

import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass

import torch

__all__ = ["Clocks", "clocks"]


@dataclass(frozen=True)
class Clocks:
    """The state of the GPU while it works, as `nvidia-smi` reports it."""

    sm_mhz: int
    memory_mhz: int
    power_w: float
    temperature_c: int
    driver: str


def clocks(device: torch.device) -> Clocks | None:
    """The GPU's clocks, power and temperature now; None on a CPU, or if `nvidia-smi` cannot be asked."""
    # nvidia-smi knows CUDA devices alone: another type of device has another tool
    if device.type != "cuda" or shutil.which("nvidia-smi") is None:
        return None
    wanted = "clocks.sm,clocks.mem,power.draw,temperature.gpu,driver_version"
    with suppress(OSError, subprocess.SubprocessError, ValueError):
        # by its UUID: the numbers of torch and of nvidia-smi differ where CUDA_VISIBLE_DEVICES is set
        uuid = getattr(torch.cuda.get_device_properties(device), "uuid", None)
        which = ["-i", f"GPU-{uuid}"] if uuid is not None else []
        answer = subprocess.run(
            ["nvidia-smi", *which, f"--query-gpu={wanted}", "--format=csv,noheader,nounits"],
            capture_output=True, text=True, timeout=10, check=True,
        ).stdout  # fmt: skip
        sm, memory, power, temperature, driver = (item.strip() for item in answer.splitlines()[0].split(","))
        return Clocks(int(sm), int(memory), float(power), int(temperature), driver)
    return None
