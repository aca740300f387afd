"""The values that a kernel reads if it assumes wrong strides of its input."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["contiguous_strides", "misread"]


def contiguous_strides(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides that a contiguous tensor of this shape has, in elements."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.append(strides[-1] * size)
    return tuple(reversed(strides))


def misread(t: Tensor, strides: Sequence[int] | None = None, offset: int | None = None) -> Tensor:
    """`t` as read from its memory with other strides or another offset, in elements; None means contiguous strides.

    Reads past the end of the memory continue at its start, because they must not leave the tensor.
    """
    place = torch.tensor(t.storage_offset() if offset is None else offset)
    for size, stride in zip(t.shape, strides or contiguous_strides(t.shape), strict=True):
        place = place[..., None] + torch.arange(size) * stride
    memory = t.untyped_storage().nbytes() // t.element_size()
    return torch.as_strided(t, (memory,), (1,), 0)[place.to(t.device) % memory]
