"""Named outputs of a forward pass: the output of an attention, or logits and loss of a model."""

import inspect
from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.errors import UnfitResult
from equivcheck.pairs.forward import HOW_TO_COMPARE, taking, tensor_of
from equivcheck.pairs.plain_tensors import Subclasses, plain
from equivcheck.pairs.sides import foreign
from equivcheck.pairs.write_guard import Guard

__all__ = ["Outputs", "Shell", "further_output", "guarded", "model_outputs", "takes_targets", "tensor_output"]

Outputs = Callable[[nn.Module, Sequence[Tensor]], dict[str, Tensor]]
"""Runs a forward pass of a module on inputs, and returns its results by name."""


def guarded(
    outputs: Outputs,
    guard: Guard,
    known: Subclasses,
    names: Sequence[str],
    module: nn.Module,
    inputs: Sequence[Tensor],
) -> dict[str, Tensor]:
    """The named results of one forward pass as plain tensors; its exceptions count as the pair's.

    Args:
        outputs: Runs the forward pass.
        guard: Compares parameters and inputs before and after the pass.
        known: The subclasses of Tensor that the original returns.
        names: The names of the inputs in messages.
        module: The module to run.
        inputs: The inputs of the pass.

    Raises:
        Overwritten: The candidate changed a parameter or an input.
        UnfitResult: A result is no plain tensor.
    """
    with guard.over(module, dict(zip(names, inputs, strict=False))), foreign():
        return {name: plain(value, name, known) for name, value in outputs(module, inputs).items()}


def tensor_output(module: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """The output of one forward pass of an attention."""
    y = module(*inputs)  # results of other forms have been unwrapped before
    if not isinstance(y, Tensor):
        raise UnfitResult(f"the forward pass returned {type(y).__name__} instead of a tensor: {HOW_TO_COMPARE}")
    return {"output": y}


def further_output(number: int, module: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """A result besides the first of one forward pass of an attention, as `tensor_output` gives the first."""
    with taking(number):
        return tensor_output(module, inputs)


def takes_targets(module: nn.Module) -> bool:
    """Whether a model's forward takes targets besides the token ids."""
    return "targets" in inspect.signature(module.forward).parameters


def model_outputs(module: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
    """Logits and loss of one forward pass; the loss is the mean cross-entropy if the model returns none."""
    idx, targets = inputs
    result = module(idx, targets) if takes_targets(module) else module(idx)
    logits, loss = result if isinstance(result, tuple | list) and len(result) == 2 else (result, None)
    logits = tensor_of(logits)
    if not isinstance(logits, Tensor):
        message = f"the forward pass returned {type(logits).__name__} instead of logits, or (logits, loss)"
        raise UnfitResult(f"{message}: {HOW_TO_COMPARE}")
    if not isinstance(loss, Tensor):  # (logits, cache)
        loss = None
    if loss is None:
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), targets.reshape(-1))
    return {"logits": logits, "loss": loss}


class Shell(nn.Module):
    """A module whose forward returns the named outputs of the module inside."""

    def __init__(self, inner: nn.Module, outputs: Outputs) -> None:
        super().__init__()
        self.inner, self.outputs = inner, outputs

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        return self.outputs(self.inner, inputs)
