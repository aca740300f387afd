"""Calls in inference mode that leave no tensor of it behind in what code keeps from call to call."""

import torch
from torch import nn

from equivcheck.pairs.problem import Problem

__all__ = ["called_in_inference_mode"]


def called_in_inference_mode(problem: Problem, module: nn.Module) -> None:
    """Call a module in inference mode, after the same call without it.

    A table that is made at the first call of a length is kept by many modules and functions. Made in inference mode, it
    cannot be used in training: a loud refusal that the `inference` of `purity` is about, and no other comparison.

    Args:
        problem: The case made real.
        module: The module to call.
    """
    with torch.no_grad():
        problem.outputs(module, problem.inputs)
    with torch.inference_mode():
        problem.outputs(module, problem.inputs)
