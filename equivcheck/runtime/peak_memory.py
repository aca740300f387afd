"""The peak of the memory that an action takes on a device: the allocator's, or that of the tensors that were made."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from equivcheck.runtime.device import type_of

__all__ = ["peak_during"]


def peak_during(
    action: Callable[[], object], device: torch.device, *, first: Callable[[], object] | None = None
) -> tuple[int | None, int]:
    """The peak memory in bytes while an action runs.

    On the CPU torch does not count, and the tensors that were made are counted. The workspace of a kernel is not seen.

    Args:
        action: The action.
        device: The device that it runs on.
        first: Another action before it, of which only what it leaves behind counts, such as a cache.

    Returns:
        The peak in all, None on the CPU, and the peak above what was resident before both.
    """
    row = type_of(device)
    if not row.counts_memory:
        with _Tensors() as tensors:
            if first is not None:
                first()
                tensors.peak_bytes = tensors.bytes
            action()
        return None, tensors.peak_bytes
    row.synchronize(device)
    resident = row.allocated_bytes(device)
    if first is not None:
        first()
        row.synchronize(device)
    row.reset_peak(device)
    action()
    row.synchronize(device)
    peak = row.peak_bytes(device)
    return peak, peak - resident


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
