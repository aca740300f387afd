"""Devices: the one that a user asks for, its name, and whether it still answers.

After an illegal access all calls of a process fail, those of right kernels too.
"""

import torch

from equivcheck.errors import DeviceLost, UsageError

__all__ = ["device_name", "find_device", "hold_device"]


def hold_device(device: torch.device, doing: str, error: Exception | None = None) -> None:
    """Return where `device` answers after what was `doing`, and after `error` if it raised; DeviceLost where it does not."""
    if device.type == "cpu" or not (error is None or isinstance(error, RuntimeError)):
        return
    try:
        torch.zeros((), device=device).item()
    except RuntimeError as its:
        first = error or its
        told = next((line.strip() for line in str(first).splitlines() if line.strip()), "")
        raise DeviceLost(
            f"{device} is lost to this process, at the latest while {doing}: {type(first).__name__}: {told}; nothing more can "
            "be judged in it, and `CUDA_LAUNCH_BLOCKING=1 equivcheck replay` on this case tells which kernel it was"
        ) from first


def find_device(device: str) -> torch.device:
    """The device to run on: `auto` is the current CUDA device where there is one; a UsageError where the device is missing."""
    if device == "auto":
        return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    try:
        found = torch.device(device)
    except RuntimeError:
        found = torch.device("meta")
    if found.type not in ("cpu", "cuda"):
        raise UsageError(f"unknown device {device!r}: allowed are auto, cpu, cuda and cuda:N")
    if found.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise UsageError(
                f"device {device!r} was asked for and torch {torch.__version__} sees no CUDA GPU: use --device cpu"
            )
        index = torch.cuda.current_device() if found.index is None else found.index
        if index >= count:
            raise UsageError(
                f"device {device!r} was asked for and torch sees {count} CUDA GPU(s): use cuda:0 to cuda:{count - 1}"
            )
        found = torch.device("cuda", index)
    return found


def device_name(device: torch.device) -> str:
    """The device, on CUDA with the name of the GPU."""
    return f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device)
