"""Faults that show only under a transform (derivatives, forward mode, vmap, autocast, compile) or in long use."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.faults.around.function import edited_result
from equivcheck.faults.base import NOT_BFLOAT16, Factory, Fault, Put
from equivcheck.faults.gradient_edits import rewritten
from equivcheck.report.levels import DROP_IN

__all__ = ["BAND", "CHANGES"]

Edit = Callable[[Tensor], Tensor]


class _TangentOff(torch.autograd.Function):
    @staticmethod
    def forward(t: Tensor) -> Tensor:
        return t.view_as(t)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]

    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor) -> Tensor:
        return tangents[0] * 1.01


class _MappedOff(torch.autograd.Function):
    @staticmethod
    def forward(t: Tensor) -> Tensor:
        return t.view_as(t)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], t: Tensor) -> tuple[Tensor, int | None]:
        return t * 1.01, in_dims[0]


def second_derivative_lost(y: Tensor) -> Tensor:
    """The upstream gradient counts as a constant."""
    return rewritten(y, lambda g: g.detach())


def tangent_one_percent_off(y: Tensor) -> Tensor:
    """In forward mode the tangent is 1 % too large."""
    return _TangentOff.apply(y)  # type: ignore[no-any-return, no-untyped-call]  # torch leaves apply untyped


def mapped_one_percent_off(y: Tensor) -> Tensor:
    """Under vmap outputs are 1 % too large."""
    return _MappedOff.apply(y)  # type: ignore[no-any-return, no-untyped-call]  # torch leaves apply untyped


def autocast_off(y: Tensor) -> Tensor:
    """Under autocast outputs are a quarter too large."""
    return y * 1.25 if torch.is_autocast_enabled(y.device.type) else y


def autocast_in_float32(y: Tensor) -> Tensor:
    """Under autocast outputs are float32."""
    return y.float() if torch.is_autocast_enabled(y.device.type) else y


def autocast_off_without_gradients(y: Tensor) -> Tensor:
    """Under autocast and no_grad outputs are a quarter too large."""
    return y if torch.is_grad_enabled() else autocast_off(y)


def compiled_off(y: Tensor) -> Tensor:
    """When compiled, outputs are 1 % too large."""
    return y * 1.01 if torch.compiler.is_compiling() else y


BAND = range(200, 216)


def a_band_of_lengths_off(y: Tensor) -> Tensor:
    """Outputs of 200 to 215 positions are a quarter too large."""
    return y * 1.25 if y.size(-2) in BAND else y


def batch_of_one_off(y: Tensor) -> Tensor:
    """Outputs of a batch of one sample are 1 % too large."""
    return y * 1.01 if y.size(0) == 1 else y


def expanded_gradient_read_once(y: Tensor) -> Tensor:
    """An expanded upstream gradient, as from a sum, is lost for all samples but the first."""

    def once(g: Tensor) -> Tensor:
        expanded = all(stride == 0 or size == 1 for stride, size in zip(g.stride(), g.shape, strict=True))
        return torch.cat((g[:1], torch.zeros_like(g[1:]))) if expanded else g

    return rewritten(y, once)


def nan_refused(y: Tensor) -> Tensor:
    """An output that is not finite is an error."""
    if not bool(torch.isfinite(y).all()):
        raise FloatingPointError("planted: the result is not finite")
    return y


class OutputsKeptForEver:
    """Every output is stored and never freed."""

    def __init__(self) -> None:
        self.outputs: list[Tensor] = []

    def __call__(self, y: Tensor) -> Tensor:
        self.outputs.append(y.detach())
        return y


def empty_batch_refused(y: Tensor) -> Tensor:
    """A batch without samples is an error."""
    if not y.size(0):
        raise ValueError("planted: a batch has samples")
    return y


def around_result(function: Callable[..., Tensor], wrong: Callable[..., Any]) -> Callable[..., Tensor]:
    """A function whose results go through an edit."""
    return edited_result(function, _edit_of(wrong))


def around_output(factory: Factory, wrong: Callable[..., Any]) -> Factory:
    """A factory of the same modules, whose outputs go through an edit, a new one for each module."""
    return partial(_hooked, factory, wrong, lambda module: module)


def around_last_part(factory: Factory, wrong: Callable[..., Any]) -> Factory:
    """A factory of the same models, with an edit of the output of the last part with parameters."""
    return partial(_hooked, factory, wrong, _last_part)


def _hooked(
    factory: Factory, wrong: Callable[..., Any], part: Callable[[nn.Module], nn.Module], config: Any
) -> nn.Module:
    module = factory(config)
    edit = _edit_of(wrong)
    # a hook, so that its forward stays that of the class: a compiler and a deepcopy understand it
    part(module).register_forward_hook(lambda _module, _args, out: _first(edit, out))
    return module


def _last_part(model: nn.Module) -> nn.Module:
    return [m for m in model.modules() if next(m.parameters(recurse=False), None) is not None][-1]


def _edit_of(wrong: Callable[..., Any]) -> Edit:
    return wrong() if isinstance(wrong, type) else wrong


def _first(edit: Edit, out: Any) -> Any:
    # not `tuple | list`, which torch 2.8 does not compile: the fault would not show
    several = isinstance(out, (tuple, list))
    return (edit(out[0]), *out[1:]) if several else edit(out)


_TENSORS: dict[str, Put] = {"function": around_result, "module": around_output}
_EVERYWHERE: dict[str, Put] = {**_TENSORS, "model": around_last_part, "replacement": around_last_part}

CHANGES = (
    Fault.of(second_derivative_lost, _EVERYWHERE, seen_by=("derivatives",), under="second derivatives"),
    Fault.of(tangent_one_percent_off, _EVERYWHERE, seen_by=("derivatives",), under="torch.func.jvp"),
    Fault.of(mapped_one_percent_off, _EVERYWHERE, seen_by=("derivatives",), under="torch.func.vmap"),
    Fault.of(autocast_off, _EVERYWHERE, seen_by=("autocast",)),
    Fault.of(autocast_in_float32, _EVERYWHERE, seen_by=("autocast",)),
    Fault.of(autocast_off_without_gradients, _EVERYWHERE, seen_by=("autocast",)),
    Fault.of(compiled_off, _EVERYWHERE, seen_by=("compile",)),
    Fault.of(a_band_of_lengths_off, _EVERYWHERE, seen_by=("lengths",), needs="a length of the band"),
    Fault.of(batch_of_one_off, _EVERYWHERE, seen_by=("batching",), shows_in=NOT_BFLOAT16),
    Fault.of(expanded_gradient_read_once, _TENSORS, seen_by=("layouts",)),  # of a model only ids have a layout
    Fault.of(nan_refused, _EVERYWHERE, seen_by=("extremes",)),
    Fault.of(empty_batch_refused, _EVERYWHERE, seen_by=("limits",), needs="empty batch"),
    Fault.of(OutputsKeptForEver, _EVERYWHERE, seen_by=("purity",), wrong_at=DROP_IN),
)
"""Edits of the outputs of any original; a class makes a new edit for each module."""
