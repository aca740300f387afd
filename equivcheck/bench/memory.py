"""Peak memory of one action, alone on the device: in all, and above the memory that is resident."""

from dataclasses import dataclass

import torch

from equivcheck.bench.paired_timing import Make, fitting, release
from equivcheck.runtime.device import type_of
from equivcheck.runtime.peak_memory import peak_during

__all__ = ["Peak", "peak_of"]

_BEFORE = 2
"""Repetitions before the measured one: by then an optimizer has its state, and a library its workspace."""


@dataclass(frozen=True)
class Peak:
    """Peak memory in bytes: `peak_bytes` in all, and `above_bytes` above the resident memory.

    On the CPU `peak_bytes` is None, as torch does not count there, and `above_bytes` counts the tensors that were made.
    The workspace of a kernel is not seen.
    """

    peak_bytes: int | None
    above_bytes: int


def peak_of(make: Make, device: torch.device) -> Peak:
    """Build an action, run it, and measure its memory; allocations from before it are not counted.

    Raises:
        DoesNotFit: The device runs out of memory.
    """
    release(device)
    others = type_of(device).allocated_bytes(device)
    with fitting(device):
        action = make()
        for number in range(_BEFORE):
            action(number)
        peak, above = peak_during(lambda: action(_BEFORE), device)
        result = Peak(None if peak is None else peak - others, above)
        del action
    release(device)
    return result
