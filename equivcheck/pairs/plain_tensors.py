"""Results of a forward pass as plain tensors: other subclasses and layouts cannot be compared."""

import torch
from torch import Tensor, nn

from equivcheck.errors import UnfitResult
from equivcheck.pairs.sides import REFERENCE, current_side

__all__ = ["Subclasses", "plain"]

Subclasses = set[type]
"""The subclasses of Tensor that an original returns: they are unwrapped in results of both sides."""


def plain(value: Tensor, name: str, known: Subclasses) -> Tensor:
    """The tensor `value` as a plain one.

    Args:
        value: A tensor that a forward pass returned, of any shape.
        name: The name in messages, such as `output`.
        known: The subclasses that the original returns; a subclass in its result is added.

    Returns:
        The same values: `value` itself, or without its subclass.

    Raises:
        UnfitResult: The candidate returns a subclass that the original does not, or the values cannot be read.
    """
    kind = type(value)
    if kind is not Tensor and kind is not nn.Parameter:
        if current_side() == REFERENCE:
            known.add(kind)
        elif kind not in known:
            raise UnfitResult(f"{name} is a {kind.__name__}, a subclass of torch.Tensor, and no plain tensor")
        with torch._C.DisableTorchFunctionSubclass():
            value = value.as_subclass(Tensor)
    if value.device.type == "meta":
        raise UnfitResult(f"{name} is on the device meta, which has no values")
    if value.layout != torch.strided:
        raise UnfitResult(f"{name} has the layout {value.layout}, and {torch.strided} is what can be compared")
    if value.is_quantized:
        raise UnfitResult(f"{name} is quantized, and numbers are what can be compared")
    return value
