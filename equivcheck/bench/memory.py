"""Peak memory of one action, alone on the device: in all, and above the memory that is resident."""

import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from equivcheck.bench.paired_timing import Make, fitting, release
from equivcheck.runtime.device import type_of

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
    row = type_of(device)
    others = row.allocated_bytes(device)
    with fitting(device):
        action = make()
        for number in range(_BEFORE):
            action(number)
        if row.counts_memory:
            row.synchronize(device)
            resident = row.allocated_bytes(device)
            row.reset_peak(device)
            action(_BEFORE)
            row.synchronize(device)
            peak = row.peak_bytes(device)
            result = Peak(peak - others, peak - resident)
        else:
            with _Tensors() as tensors:
                action(_BEFORE)
            result = Peak(None, tensors.peak_bytes)
        del action
    release(device)
    return result


class _Tensors(TorchDispatchMode):
    """While active, counts the bytes of the tensors that were made and are still alive, and their maximum."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.peak_bytes = self.bytes = 0
        self._known: dict[weakref.ref[Any], int] = {}

    def __torch_dispatch__(  # torch's protocol
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = {id(x.untyped_storage()) for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)}
        out = func(*args, **(kwargs or {}))
        for made in tree_leaves(out):
            if isinstance(made, Tensor) and id(made.untyped_storage()) not in given:
                self._count(made.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        known = weakref.ref(storage, self._gone)
        if known not in self._known:
            self._known[known] = storage.nbytes()
            self.bytes += storage.nbytes()
            self.peak_bytes = max(self.peak_bytes, self.bytes)

    def _gone(self, known: "weakref.ref[Any]") -> None:
        self.bytes -= self._known.pop(known, 0)
