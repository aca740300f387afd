"""Faults around the modules of any factory: they change inputs, outputs and gradients."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.faults.around import edits
from equivcheck.faults.base import NOT_BFLOAT16, WIDE, Factory, Fault
from equivcheck.faults.gradient_edits import rewritten, rewritten_parameter
from equivcheck.faults.inside.strides import misread
from equivcheck.numerics.dtypes import HALF
from equivcheck.report.levels import TRAINING, VALUES

__all__ = [
    "EDITED_OUTPUT",
    "IN_A_GPT",
    "PLANTS",
    "eval_mode_ignored",
    "first_weight_gradient_halved",
    "input_taken_for_contiguous",
    "last_weight_gradient_lost",
    "training_mode_ignored",
    "with_matrix_gradient",
]

Forward = Callable[..., Any]
Around = Callable[..., Any]


@dataclass(frozen=True)
class Planted:
    """A factory of the same modules, whose `forward` runs inside `around(module, forward, x)`."""

    factory: Factory
    around: Around

    def __call__(self, config: Any) -> nn.Module:
        module = self.factory(config)
        forward = module.forward
        # on the instance, and as a partial: the class stays unchanged, and copies are bound to themselves
        planted = functools.partial(self.around, module, forward)
        functools.update_wrapper(planted, forward)
        module.forward = planted
        return module


def edited_output(factory: Factory, edit: Callable[[Tensor], Tensor]) -> Planted:
    """A factory of the same modules, whose outputs are edited."""
    return Planted(factory, functools.partial(_edited, edit))


def _edited(edit: Callable[[Tensor], Tensor], module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    return edit(forward(x))


AROUND_FORWARD = {"module": Planted}
EDITED_OUTPUT = {"module": edited_output}


def half_precision_wrong(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """Outputs are 10 % too large in bfloat16 and float16, and right in wider dtypes."""
    return edits.half_precision_wrong(forward(x), x.dtype)


def leak_from_the_next_token(module: nn.Module, forward: Forward, x: Tensor) -> Any:
    """A hundredth of the next token's input is added to each output."""
    return forward(x) + 0.01 * F.pad(x[:, 1:], (0, 0, 0, 1))


def input_gradient_one_percent_off(module: nn.Module, forward: Forward, x: Tensor) -> Any:
    """The gradient of the input is 1 % too large."""
    return forward(rewritten(x, lambda g: g * 1.01))


def input_gradient_lost(module: nn.Module, forward: Forward, x: Tensor) -> Any:
    """No gradient reaches the input."""
    return forward(rewritten(x, torch.zeros_like))


def with_matrix_gradient(
    which: int, factor: float, module: nn.Module, forward: Forward, *args: Any, **options: Any
) -> Any:
    """A forward pass in which one of the parameters that are matrices gets its gradient times a factor."""
    # a matrix, because the gradient of a bias may be zero in the original, as for the bias of the keys
    matrices = [name for name, parameter in module.named_parameters() if parameter.dim() > 1]
    path, _, name = matrices[which].rpartition(".")
    with rewritten_parameter(module.get_submodule(path), name, lambda g: g * factor):
        return forward(*args, **options)


def first_weight_gradient_halved(module: nn.Module, forward: Forward, *args: Any, **options: Any) -> Any:
    """The first parameter that is a matrix gets half of its gradient."""
    return with_matrix_gradient(0, 0.5, module, forward, *args, **options)


def last_weight_gradient_lost(module: nn.Module, forward: Forward, *args: Any, **options: Any) -> Any:
    """The last parameter that is a matrix gets a gradient of zero."""
    return with_matrix_gradient(-1, 0.0, module, forward, *args, **options)


def upstream_gradient_taken_for_contiguous(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """The upstream gradient is read as if it were contiguous."""
    return rewritten(forward(x), lambda g: g if g.is_contiguous() else misread(g))


def input_taken_for_contiguous(module: nn.Module, forward: Forward, x: Tensor, *rest: Any, **options: Any) -> Any:
    """The input is read as if it were contiguous."""
    return forward(x if x.is_contiguous() else misread(x, offset=int(x.storage_offset())), *rest, **options)


def input_modified_in_place(module: nn.Module, forward: Forward, x: Tensor) -> Any:
    """The input is multiplied by 1.01 in place after it has been read."""
    y = forward(x)
    x.data.mul_(1.01)
    return y


def dropout_left_on(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """A tenth of the outputs is dropped in every mode."""
    return F.dropout(forward(x), 0.1, training=True)


def _in_mode(mode: bool, module: nn.Module, forward: Forward, *args: Any, **options: Any) -> Any:
    modes = {m: m.training for m in module.modules()}
    module.train(mode)
    try:
        return forward(*args, **options)
    finally:
        for m, training in modes.items():
            m.training = training


def training_mode_ignored(module: nn.Module, forward: Forward, *args: Any, **options: Any) -> Any:
    """Everything runs as in eval mode: nothing is ever dropped."""
    return _in_mode(False, module, forward, *args, **options)


def eval_mode_ignored(module: nn.Module, forward: Forward, *args: Any, **options: Any) -> Any:
    """Everything runs as in training mode: dropout never ends."""
    return _in_mode(True, module, forward, *args, **options)


def generator_drawn_from_in_eval(module: nn.Module, forward: Forward, x: Tensor) -> Any:
    """A call in eval mode draws a random number and does not use it."""
    if not module.training:
        torch.rand((), device=x.device)
    return forward(x)


def generator_reseeded(module: nn.Module, forward: Forward, x: Tensor) -> Any:
    """Each call in training mode seeds the global generators."""
    if module.training:
        torch.manual_seed(1234)
    return forward(x)


def state_kept_between_calls(module: nn.Module, forward: Forward, x: Tensor) -> Any:
    """A thousandth of the mean of the last output is added to the next."""
    y = forward(x)
    last: Tensor | None = vars(module).get("last_mean")
    vars(module)["last_mean"] = y.detach().mean()
    return y if last is None else y + last.to(y) / 1000


def refusals_swallowed(module: nn.Module, forward: Forward, x: Tensor) -> Any:
    """Zeros are returned if the attention refuses an input."""
    try:
        return forward(x)
    except (AssertionError, RuntimeError, ValueError, IndexError):
        return torch.zeros_like(x)


_output = functools.partial(Fault.of, around=EDITED_OUTPUT)
_forward = functools.partial(Fault.of, around=AROUND_FORWARD)

PLANTS = (
    _output(edits.outputs_scaled_by_64_units_in_the_last_place, seen_by=("output",)),
    _output(edits.outputs_scaled_by_one_in_65536, seen_by=("output",), shows_in=WIDE, size=2.0**-16),
    _output(edits.outputs_through_float32, seen_by=("output",), shows_in=("float64",), size=2.0**-25),
    _output(edits.outputs_one_unit_toward_zero, seen_by=("bias",), shows_in=HALF),
    _output(edits.outputs_with_noise, seen_by=("purity", "output")),
    # ten per cent, which bfloat16 shows in some cases only
    _forward(half_precision_wrong, seen_by=("output", "gradients"), shows_in=("float16",)),
    _output(edits.last_token_two_percent_off, seen_by=("output", "gradients"), shows_in=WIDE),
    _output(edits.tokens_past_64_off, seen_by=("output", "gradients"), shows_in=NOT_BFLOAT16),
    _output(edits.last_two_tokens_swapped, seen_by=("output", "causality")),
    _forward(leak_from_the_next_token, seen_by=("causality", "output")),
    _output(edits.quarter_of_the_channels_negated, seen_by=("output", "gradients")),
    _output(edits.outputs_negated, seen_by=("output",)),
    _output(edits.first_sample_for_all, seen_by=("output",)),
    _forward(input_gradient_one_percent_off, seen_by=("gradients",), shows_in=WIDE),
    _forward(input_gradient_lost, seen_by=("gradients",)),
    _forward(first_weight_gradient_halved, seen_by=("gradients",)),
    _forward(last_weight_gradient_lost, seen_by=("gradients",)),
    _forward(upstream_gradient_taken_for_contiguous, seen_by=("gradients",)),
    _forward(input_taken_for_contiguous, seen_by=("output",)),
    _forward(input_modified_in_place, seen_by=("purity",)),
    _forward(dropout_left_on, seen_by=("output", "modes", "purity")),
    _forward(training_mode_ignored, seen_by=("dropout", "modes")),
    _forward(eval_mode_ignored, seen_by=("modes", "dropout"), wrong_at=VALUES),
    _forward(generator_drawn_from_in_eval, seen_by=("purity", "modes"), wrong_at=TRAINING),
    _forward(generator_reseeded, seen_by=("dropout", "modes")),
    _forward(state_kept_between_calls, seen_by=("purity", "modes"), shows_in=WIDE),
    _forward(refusals_swallowed, seen_by=("errors",), needs="refusals"),
)
IN_A_GPT = (
    _output(
        edits.quarter_of_the_channels_negated, name="quarter-of-the-channels-negated-in-a-gpt", seen_by=("logits",)
    ),
    _output(
        edits.last_token_two_percent_off,
        name="last-token-two-percent-off-in-a-gpt",
        seen_by=("logits",),
        shows_in=WIDE,
    ),
    _forward(first_weight_gradient_halved, name="first-weight-gradient-halved-in-a-gpt", seen_by=("logits",)),
    _forward(first_weight_gradient_halved, name="first-weight-gradient-halved-in-training", seen_by=("training",)),
    _output(
        edits.outputs_negated,
        name="outputs-negated-when-generating",
        seen_by=("generation",),
        shows_in=NOT_BFLOAT16,
    ),
)
"""Faults for the checks that put a module into a whole GPT."""
