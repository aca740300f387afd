"""Faults that are planted from outside, around the modules of any factory: they touch what goes in and comes out."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.faults.base import Factory, Plant, name_of, summary_of
from equivcheck.faults.gradient_edits import rewritten, rewritten_parameter
from equivcheck.faults.inside.strides import misread

__all__ = ["PLANTS", "Planted"]

Forward = Callable[[Tensor], Tensor]
Around = Callable[[nn.Module, Forward, Tensor], Tensor]


@dataclass(frozen=True)
class Planted:
    """A factory of the same modules, whose `forward` runs inside `around(module, forward, x)`."""

    factory: Factory
    around: Around

    def __call__(self, config: Any) -> nn.Module:
        module = self.factory(config)
        forward = module.forward
        # on the instance, and as a partial: the class stays what it was, and copies are bound to themselves
        planted = functools.partial(self.around, module, forward)
        functools.update_wrapper(planted, forward)
        module.forward = planted
        return module


def outputs_scaled_by_64_units_in_the_last_place(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """Outputs are multiplied by 1 + 64 eps of their dtype: 1.4e-14 in float64, 7.6e-6 in float32, 0.5 in bfloat16."""
    y = forward(x)
    return y * (1.0 + 64 * torch.finfo(y.dtype).eps)


def outputs_scaled_by_one_in_65536(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """Outputs are multiplied by 1 + 2^-16: to be seen in float32 and float64, lost in rounding below."""
    return forward(x) * (1.0 + 2.0**-16)


def outputs_through_float32(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """Outputs are rounded to float32: to be seen in float64 only."""
    y = forward(x)
    return y.float().to(y.dtype)


def outputs_one_unit_toward_zero(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """In bfloat16 and float16 every output is one unit in the last place nearer to zero."""
    y = forward(x)
    if y.dtype not in (torch.bfloat16, torch.float16):
        return y
    bits = y.detach().contiguous().view(torch.int16)  # sign and magnitude: one less is one nearer to zero
    nearer = torch.where(y.detach() == 0, bits, bits - 1).view(y.dtype)
    return y + (nearer - y.detach())


def outputs_with_noise(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """Noise of 1 % of their root mean square is added to the outputs, from a generator of its own."""
    y = forward(x)
    generator = torch.Generator(y.device)
    generator.seed()
    noise = torch.randn(y.shape, generator=generator, device=y.device).to(y.dtype)
    return y + 0.01 * noise * y.detach().square().mean().sqrt()


def half_precision_wrong(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """Outputs are 10 % too large in bfloat16 and float16, and right in wider dtypes."""
    return forward(x) * (1.1 if torch.finfo(x.dtype).bits == 16 else 1.0)


def last_token_two_percent_off(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """The output of the last token is 2 % too large."""
    y = forward(x)
    last = torch.arange(y.size(1), device=y.device)[:, None] == y.size(1) - 1  # (T, 1)
    return torch.where(last, y * 1.02, y)


def tokens_past_64_off(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """The outputs from the 65th token on are 5 % too large."""
    y = forward(x)
    late = torch.arange(y.size(1), device=y.device)[:, None] >= 64  # (T, 1)
    return torch.where(late, y * 1.05, y)


def last_two_tokens_swapped(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """The outputs of the last two tokens are exchanged."""
    y = forward(x)
    return torch.cat((y[:, :-2], y[:, -2:].flip(1)), dim=1)


def leak_from_the_next_token(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """A hundredth of the next token's input is added to each output."""
    return forward(x) + 0.01 * F.pad(x[:, 1:], (0, 0, 0, 1))


def quarter_of_the_channels_negated(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """The last quarter of the output's channels changes sign."""
    y = forward(x)
    C = y.size(-1)
    return torch.where(torch.arange(C, device=y.device) >= C - max(1, C // 4), -y, y)


def outputs_negated(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """All outputs change sign: gross, for what sees tokens only."""
    return -forward(x)


def first_sample_for_all(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """All samples get the output of the first."""
    y = forward(x)
    return y[:1].expand_as(y).clone()


def input_gradient_one_percent_off(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """The gradient of the input is 1 % too large."""
    return forward(rewritten(x, lambda g: g * 1.01))


def input_gradient_lost(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """No gradient reaches the input."""
    return forward(rewritten(x, torch.zeros_like))


def _with_matrix(which: int, factor: float, module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    # a matrix, because the gradient of a bias may be zero in the original: that of the keys' is
    matrices = [name for name, parameter in module.named_parameters() if parameter.dim() > 1]
    path, _, name = matrices[which].rpartition(".")
    with rewritten_parameter(module.get_submodule(path), name, lambda g: g * factor):
        return forward(x)


def first_weight_gradient_halved(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """The first parameter that is a matrix gets half of its gradient."""
    return _with_matrix(0, 0.5, module, forward, x)


def last_weight_gradient_lost(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """The last parameter that is a matrix gets a gradient of zero."""
    return _with_matrix(-1, 0.0, module, forward, x)


def upstream_gradient_taken_for_contiguous(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """What comes back is read as if it were contiguous."""
    return rewritten(forward(x), lambda g: g if g.is_contiguous() else misread(g))


def input_taken_for_contiguous(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """The input is read as if it were contiguous."""
    return forward(x if x.is_contiguous() else misread(x, offset=int(x.storage_offset())))


def input_modified_in_place(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """The input is multiplied by 1.01 in place after it has been read."""
    y = forward(x)
    x.data.mul_(1.01)
    return y


def dropout_left_on(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """A tenth of the outputs is dropped in every mode."""
    return F.dropout(forward(x), 0.1, training=True)


def _in_mode(mode: bool, module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    modes = {m: m.training for m in module.modules()}
    module.train(mode)
    try:
        return forward(x)
    finally:
        for m, training in modes.items():
            m.training = training


def training_mode_ignored(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """Everything runs as in eval mode: nothing is ever dropped."""
    return _in_mode(False, module, forward, x)


def eval_mode_ignored(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """Everything runs as in training mode: dropout never ends."""
    return _in_mode(True, module, forward, x)


def generator_drawn_from_in_eval(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """A call in eval mode draws a number that nobody uses."""
    if not module.training:
        torch.rand((), device=x.device)
    return forward(x)


def generator_reseeded(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """Each call in training mode seeds the global generators."""
    if module.training:
        torch.manual_seed(1234)
    return forward(x)


def state_kept_between_calls(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """A thousandth of the mean of the last output is added to the next."""
    y = forward(x)
    last: Tensor | None = vars(module).get("last_mean")
    vars(module)["last_mean"] = y.detach().mean()
    return y if last is None else y + last.to(y) / 1000


def refusals_swallowed(module: nn.Module, forward: Forward, x: Tensor) -> Tensor:
    """Where the attention refuses an input, zeros are returned."""
    try:
        return forward(x)
    except (RuntimeError, ValueError):
        return torch.zeros_like(x)


def _plant(around: Around, *seen_by: str) -> Plant:
    return Plant(name_of(around), summary_of(around), seen_by, functools.partial(Planted, around=around))


PLANTS = (
    _plant(outputs_scaled_by_64_units_in_the_last_place, "output"),
    _plant(outputs_scaled_by_one_in_65536, "output"),
    _plant(outputs_through_float32, "output"),
    _plant(outputs_one_unit_toward_zero, "bias"),
    _plant(outputs_with_noise, "purity", "output"),
    _plant(half_precision_wrong, "output", "gradients"),
    _plant(last_token_two_percent_off, "output", "gradients"),
    _plant(tokens_past_64_off, "output", "gradients"),
    _plant(last_two_tokens_swapped, "output", "causality"),
    _plant(leak_from_the_next_token, "causality", "output"),
    _plant(quarter_of_the_channels_negated, "output", "gradients"),
    _plant(outputs_negated, "output"),
    _plant(first_sample_for_all, "output"),
    _plant(input_gradient_one_percent_off, "gradients"),
    _plant(input_gradient_lost, "gradients"),
    _plant(first_weight_gradient_halved, "gradients"),
    _plant(last_weight_gradient_lost, "gradients"),
    _plant(upstream_gradient_taken_for_contiguous, "gradients"),
    _plant(input_taken_for_contiguous, "output"),
    _plant(input_modified_in_place, "purity"),
    _plant(dropout_left_on, "output", "modes", "purity"),
    _plant(training_mode_ignored, "dropout", "modes"),
    _plant(eval_mode_ignored, "modes", "dropout"),
    _plant(generator_drawn_from_in_eval, "purity", "modes"),
    _plant(generator_reseeded, "dropout", "modes"),
    _plant(state_kept_between_calls, "purity", "modes"),
    _plant(refusals_swallowed, "errors"),
)
