"""Faults around any model of token ids."""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.cases.names import CACHES
from equivcheck.faults.around import edits
from equivcheck.faults.around.module import (
    eval_mode_ignored,
    first_weight_gradient_halved,
    input_taken_for_contiguous,
    last_weight_gradient_lost,
    training_mode_ignored,
    with_matrix_gradient,
)
from equivcheck.faults.around.module_contract import (
    adapter_ignored,
    edited_module,
    parameter_renamed,
    submodule_not_called,
)
from equivcheck.faults.base import NOT_BFLOAT16, WIDE, Factory, Fault
from equivcheck.report.levels import TRAINING, VALUES

__all__ = ["MODELS"]

Forward = Callable[..., Any]


def around_model(factory: Factory, wrong: Callable[..., Any]) -> Factory:
    """A factory of the same models, whose forward runs inside of `wrong`."""
    return functools.partial(_built, factory, wrong)


def _built(factory: Factory, wrong: Callable[..., Any], config: Any) -> nn.Module:
    module = factory(config)
    forward = module.forward

    def planted_forward(idx: Tensor, *rest: Any, **options: Any) -> Any:
        return wrong(module, forward, idx, *rest, **options)

    functools.update_wrapper(planted_forward, forward)  # the signature of the model
    module.forward = planted_forward
    return module


def edited_logits(factory: Factory, edit: Callable[[Tensor], Tensor]) -> Factory:
    """A factory of the same models, whose logits are edited."""
    return around_model(factory, functools.partial(_edited, edit))


def _edited(edit: Callable[[Tensor], Tensor], module: nn.Module, forward: Forward, *args: Any, **options: Any) -> Any:
    result = forward(*args, **options)
    if isinstance(getattr(result, "logits", None), Tensor):
        result.logits = edit(result.logits)
        return result
    return (edit(result[0]), *result[1:]) if isinstance(result, tuple | list) else edit(result)


def second_weight_gradient_one_percent_off(module: nn.Module, forward: Forward, *args: Any, **options: Any) -> Any:
    """The second parameter that is a matrix gets a gradient 1 % too large."""
    return with_matrix_gradient(1, 1.01, module, forward, *args, **options)


def leak_from_the_next_token(module: nn.Module, forward: Forward, idx: Tensor, *rest: Any, **options: Any) -> Any:
    """A hundredth of the next token's id is added to each logit."""
    moved = F.pad(idx[:, 1:], (0, 1)).unsqueeze(-1)
    return _edited(lambda y: y + 0.01 * moved.to(y.dtype), module, forward, idx, *rest, **options)


def generator_drawn_from(module: nn.Module, forward: Forward, idx: Tensor, *rest: Any, **options: Any) -> Any:
    """Each call draws a random number and does not use it."""
    torch.rand((), device=idx.device)
    return forward(idx, *rest, **options)


def refusals_swallowed(module: nn.Module, forward: Forward, idx: Tensor, *rest: Any, **options: Any) -> Any:
    """Zeros are returned if the model refuses an input."""
    try:
        return forward(idx, *rest, **options)
    except (AssertionError, RuntimeError, ValueError, IndexError):
        return torch.zeros(*idx.shape, 2), torch.zeros(())


def logits_off_with_a_cache(module: nn.Module, forward: Forward, *args: Any, **options: Any) -> Any:
    """Logits are 5 % too large if a cache is given."""
    if all(options.get(name) is None for name in CACHES):
        return forward(*args, **options)
    return _edited(lambda y: y * 1.05, module, forward, *args, **options)


def one_more_result(module: nn.Module, forward: Forward, *args: Any, **options: Any) -> Any:
    """The model returns None as one more result."""
    result = forward(*args, **options)
    return (*result, None) if isinstance(result, tuple | list) else (result, None)


def _around(put: Callable[[Factory, Any], Factory]) -> Callable[..., Fault]:
    return functools.partial(Fault.of, around={"model": put, "replacement": put})


_logits, _forward, _module = _around(edited_logits), _around(around_model), _around(edited_module)

MODELS = (
    _forward(logits_off_with_a_cache, seen_by=("decoding",)),
    _logits(
        edits.outputs_scaled_by_one_in_65536,
        name="logits-scaled-by-one-in-65536",
        seen_by=("logits",),
        shows_in=WIDE,
        size=2.0**-16,
    ),
    _logits(
        edits.outputs_through_float32,
        name="logits-through-float32",
        seen_by=("logits",),
        shows_in=("float64",),
        size=2.0**-25,
    ),
    # ten per cent, which bfloat16 shows in some cases only
    _logits(edits.half_precision_wrong, seen_by=("logits",), shows_in=("float16",)),
    _logits(edits.last_token_two_percent_off, seen_by=("logits",), shows_in=WIDE),
    _logits(edits.tokens_past_16_off, seen_by=("logits",), shows_in=NOT_BFLOAT16),
    _logits(edits.last_two_tokens_swapped, seen_by=("logits", "causality")),
    _logits(edits.first_sample_for_all, seen_by=("logits",)),
    _forward(leak_from_the_next_token, seen_by=("causality", "logits")),
    _forward(first_weight_gradient_halved, seen_by=("logits",)),
    _forward(last_weight_gradient_lost, seen_by=("logits",)),
    _forward(second_weight_gradient_one_percent_off, seen_by=("logits",), shows_in=WIDE),
    _logits(
        edits.outputs_negated,
        name="logits-negated-when-generating",
        seen_by=("generation",),
        shows_in=NOT_BFLOAT16,
    ),
    _forward(first_weight_gradient_halved, name="first-weight-gradient-halved-in-training", seen_by=("training",)),
    _forward(training_mode_ignored, seen_by=("dropout", "modes")),
    _forward(eval_mode_ignored, seen_by=("modes", "purity"), wrong_at=VALUES),
    _forward(generator_drawn_from, seen_by=("purity",), wrong_at=TRAINING),
    _forward(refusals_swallowed, seen_by=("errors",), needs="refusals"),
    _module(parameter_renamed, seen_by=("checkpoint",)),
    _module(submodule_not_called, seen_by=("interface",)),
    _forward(one_more_result, seen_by=("interface",)),
    _logits(edits.softmax_spelled_out, seen_by=("backend",)),
    _logits(edits.scores_made_a_hundred_times, seen_by=("memory",)),
    _module(adapter_ignored, seen_by=("interface",)),
    _forward(input_taken_for_contiguous, name="ids-taken-for-contiguous", seen_by=("layouts",)),
)
