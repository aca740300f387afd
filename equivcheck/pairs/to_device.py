"""Moves a tensor to a device with its strides."""

import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.cases.case import ALIGNED_BYTES

__all__ = ["to_device"]


def to_device(x: Tensor, device: torch.device) -> Tensor:
    """Move a tensor to a device and keep its strides, overlapping ones too."""
    if device.type == "cpu":
        return x
    base = x if x._base is None else x._base
    if not base.is_contiguous():
        return x.to(device, non_blocking=True)
    moved, start = base.to(device, non_blocking=True), x.storage_offset()
    if beyond := start * x.element_size() % ALIGNED_BYTES:
        more = (ALIGNED_BYTES - beyond) // x.element_size()
        moved, start = F.pad(moved.reshape(-1), (more, 0)), start + more
    return moved.as_strided(x.shape, x.stride(), start)
