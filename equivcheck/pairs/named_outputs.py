"""Named outputs of a forward pass: what takes them from a module, and a module whose forward gives them."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

__all__ = ["Outputs", "Shell"]

Outputs = Callable[[nn.Module, Sequence[Tensor]], dict[str, Tensor]]
"""Turns a forward pass of a module into named tensors."""


class Shell(nn.Module):
    """A module whose forward gives the named outputs of the one inside."""

    def __init__(self, inner: nn.Module, outputs: Outputs) -> None:
        super().__init__()
        self.inner, self.outputs = inner, outputs

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        return self.outputs(self.inner, inputs)
