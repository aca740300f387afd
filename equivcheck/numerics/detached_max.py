"""Row maxima that a hand-written softmax subtracts before its exponentials: their gradient is zero but for rounding.

A softmax does not depend on the number that is subtracted. If an original does not detach the maximum, the gradient
through it is mathematically zero, and cancels the rounding errors of a row's gradients: at T = 1 these are exactly
zero. No other implementation does that. If the truth is the same without this gradient, the perturbed runs detach the
maximum.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Maxima", "same_without"]

_MAXIMA = (torch.amax, Tensor.amax, torch.max, Tensor.max, torch.maximum, Tensor.maximum)
_SAME = 2.0**-40  # of the largest value: far above rounding in float64, far below the effect of a maximum that matters


class Maxima(TorchFunctionMode):
    """Records in `met` whether a maximum was taken of a tensor with a gradient; `detached` stops that gradient."""

    def __init__(self, *, detached: bool = False) -> None:
        super().__init__()
        self.detached, self.met = detached, False

    def __torch_function__(  # torch's protocol
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func not in _MAXIMA:
            return result
        values = result if isinstance(result, Tensor) else result[0]
        self.met = self.met or values.requires_grad
        if not self.detached:
            return result
        return result.detach() if isinstance(result, Tensor) else type(result)((values.detach(), result[1]))


def same_without(values: Mapping[str, Tensor], without: Mapping[str, Tensor]) -> bool:
    """Whether results with and without a gradient through maxima agree up to rounding in float64."""
    largest = max((float(value.abs().max()) for value in values.values() if value.numel()), default=0.0)
    return all(
        name in without and not float((value - without[name]).abs().max()) > _SAME * largest
        for name, value in values.items()
        if value.numel()
    )
