"""Whether a GPU still answers: after an illegal access all of a process's calls fail, those of right kernels too."""

import torch

from equivcheck.errors import DeviceLost

__all__ = ["hold_device"]


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
