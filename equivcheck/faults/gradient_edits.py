"""Edits of the gradient that leave the forward pass unchanged."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["as_if", "rewritten", "rewritten_parameter"]

Rewrite = Callable[[Tensor], Tensor]


class _Rewritten(torch.autograd.Function):
    @staticmethod
    def forward(t: Tensor, rewrite: Rewrite) -> Tensor:
        return t.view_as(t)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.rewrite = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.rewrite(grads[0]), None


def rewritten(t: Tensor, rewrite: Rewrite) -> Tensor:
    """`t`, with its gradient replaced by `rewrite(gradient)`."""
    return _Rewritten.apply(t, rewrite)  # type: ignore[no-any-return, no-untyped-call]  # torch leaves apply untyped


def as_if(value: Tensor, path: Tensor) -> Tensor:
    """`value` in the forward pass, to the last bit, and the gradient of a finite `path` in the backward pass."""
    return value.detach() + (path - path.detach())


@contextmanager
def rewritten_parameter(owner: nn.Module, name: str, rewrite: Rewrite) -> Iterator[None]:
    """Inside, the gradient of one parameter of `owner` goes through `rewrite`; the state_dict does not change."""
    parameter = owner._parameters[name]
    assert parameter is not None
    # the entry keeps its position, which determines the order of the state_dict
    owner._parameters[name] = rewritten(parameter, rewrite)  # type: ignore[assignment]  # a stand-in, for one call
    try:
        yield
    finally:
        owner._parameters[name] = parameter
