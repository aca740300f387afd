"""Maxima that an original subtracts before its exponentials: what flows back through them is zero but for rounding.

Softmax is the same whatever is subtracted. An original that spells it out and does not detach the maximum takes the errors of a
row's gradients out again through it: at T = 1 its gradients are exactly zero, whatever was rounded. No other implementation does.
So where the truth is the same without that flow, it is left out of the perturbed runs.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

__all__ = ["Maxima", "same_without"]

_MAXIMA = (torch.amax, Tensor.amax, torch.max, Tensor.max, torch.maximum, Tensor.maximum)
_SAME = 2.0**-40  # of the largest value: far above rounding in float64, far below a maximum that matters


class Maxima(TorchFunctionMode):
    """While active, remembers whether a maximum was taken of what needs a gradient; with `detached`, none flows through it."""

    def __init__(self, *, detached: bool = False) -> None:
        super().__init__()
        self.detached, self.met = detached, False

    def __torch_function__(  # torch's protocol
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func not in _MAXIMA:
            return found
        values = found if isinstance(found, Tensor) else found[0]
        self.met = self.met or values.requires_grad
        if not self.detached:
            return found
        return found.detach() if isinstance(found, Tensor) else type(found)((values.detach(), found[1]))


def same_without(values: Mapping[str, Tensor], without: Mapping[str, Tensor]) -> bool:
    """Whether results without a flow through maxima are those with it, but for rounding in float64."""
    largest = max((float(value.abs().max()) for value in values.values() if value.numel()), default=0.0)
    return all(
        name in without and not float((value - without[name]).abs().max()) > _SAME * largest
        for name, value in values.items()
        if value.numel()
    )
