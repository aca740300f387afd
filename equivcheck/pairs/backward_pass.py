"""A backward pass through a module of the pair, and its gradients in strided layout."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from equivcheck.pairs.sides import foreign

__all__ = ["backward", "dense", "flow_back"]


def backward(roots: Sequence[tuple[Tensor, Tensor]], module: nn.Module) -> None:
    """A backward pass from values with their upstream gradients into the leaves' `.grad`; parameters keep no gradient.

    It does not use `torch.autograd.grad`: reentrant activation checkpointing, which is correct, refuses that.
    """
    flow_back(roots)
    for parameter in module.parameters():
        parameter.grad = None


def flow_back(roots: Sequence[tuple[Tensor, Tensor]], *, retain_graph: bool = False) -> None:
    """A backward pass from values with their upstream gradients; its exceptions count as the pair's."""
    if roots:
        with foreign():
            torch.autograd.backward(
                [value for value, _ in roots], [gradient for _, gradient in roots], retain_graph=retain_graph
            )


def dense(gradient: Tensor | None) -> Tensor | None:
    """A gradient in strided layout, in which it is compared: the gradient of an embedding may be sparse."""
    return gradient if gradient is None or gradient.layout == torch.strided else gradient.to_dense()
