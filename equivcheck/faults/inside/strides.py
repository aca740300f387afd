"""What a kernel reads when it takes the strides of its input for granted."""

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
    """`t` as found in its memory under other strides (contiguous ones) or another offset, in elements.

    Past the end of the memory it starts again at the front: a kernel would read what is not ours.
    """
    place = torch.tensor(t.storage_offset() if offset is None else offset)
    for size, stride in zip(t.shape, strides or contiguous_strides(t.shape), strict=True):
        place = place[..., None] + torch.arange(size) * stride
    memory = t.untyped_storage().nbytes() // t.element_size()
    return torch.as_strided(t, (memory,), (1,), 0)[place.to(t.device) % memory]
