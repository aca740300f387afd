"""Faults that show under a transform only: in second derivatives, forward mode, vmap, autocast and compilation; or in long use."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.faults.gradient_edits import rewritten

__all__ = ["CHANGES", "around_last_part", "around_output", "around_result"]

Change = Callable[[Tensor], Tensor]


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
    """What flows back is taken for a constant."""
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


def a_band_of_lengths_off(y: Tensor) -> Tensor:
    """Outputs of 200 to 215 positions are a quarter too large."""
    return y * 1.25 if 200 <= y.size(-2) < 216 else y


def batch_of_one_off(y: Tensor) -> Tensor:
    """A sample alone has outputs 1 % too large."""
    return y * 1.01 if y.size(0) == 1 else y


def expanded_gradient_read_once(y: Tensor) -> Tensor:
    """Where what flows back is one number expanded, as from a sum, all but the first sample's is lost."""

    def once(g: Tensor) -> Tensor:
        expanded = all(stride == 0 or size == 1 for stride, size in zip(g.stride(), g.shape, strict=True))
        return torch.cat((g[:1], torch.zeros_like(g[1:]))) if expanded else g

    return rewritten(y, once)


def refusing_nan(y: Tensor) -> Tensor:
    """An output that is not finite is an error."""
    if not bool(torch.isfinite(y).all()):
        raise FloatingPointError("planted: the result is not finite")
    return y


class _Kept:
    """Every output is kept for ever."""

    def __init__(self) -> None:
        self.kept: list[Tensor] = []

    def __call__(self, y: Tensor) -> Tensor:
        self.kept.append(y.detach())
        return y


CHANGES: dict[str, tuple[tuple[str, ...], Callable[[], Change]]] = {
    "second-derivative-lost": (("derivatives",), lambda: second_derivative_lost),
    "tangent-one-percent-off": (("derivatives",), lambda: tangent_one_percent_off),
    "mapped-one-percent-off": (("derivatives",), lambda: mapped_one_percent_off),
    "autocast-off": (("autocast",), lambda: autocast_off),
    "autocast-in-float32": (("autocast",), lambda: autocast_in_float32),
    "autocast-off-without-gradients": (("autocast",), lambda: autocast_off_without_gradients),
    "compiled-off": (("compile",), lambda: compiled_off),
    "a-band-of-lengths-off": (("lengths",), lambda: a_band_of_lengths_off),
    "batch-of-one-off": (("batching",), lambda: batch_of_one_off),
    "expanded-gradient-read-once": (("layouts",), lambda: expanded_gradient_read_once),
    "nan-refused": (("extremes",), lambda: refusing_nan),
    "outputs-kept-for-ever": (("purity",), _Kept),
}
"""What is done to the outputs of anything, by the fault's name, with the checks that should see it; made anew for each module."""


def around_result(function: Callable[..., Tensor], change: Change, *tensors: Tensor, **options: Any) -> Tensor:
    """What a function gives, changed."""
    return change(function(*tensors, **options))


def around_output(factory: Callable[[Any], nn.Module], make: Callable[[], Change], config: Any) -> nn.Module:
    """A module of the factory whose output goes through a change of its own."""
    module = factory(config)
    change = make()
    # a hook: its forward stays the class's, which a compiler and a deepcopy understand
    module.register_forward_hook(lambda _module, _args, out: _first(change, out))
    return module


def around_last_part(factory: Callable[[Any], nn.Module], make: Callable[[], Change], config: Any) -> nn.Module:
    """A model of the factory, the output of whose last part with parameters goes through a change: a loss is made of it."""
    model = factory(config)
    change = make()
    last = [m for m in model.modules() if next(m.parameters(recurse=False), None) is not None][-1]
    last.register_forward_hook(lambda _module, _args, out: _first(change, out))
    return model


def _first(change: Change, out: Any) -> Any:
    several = isinstance(
        out, (tuple, list)
    )  # not `tuple | list`, which torch 2.8 does not compile: the fault would not show
    return (change(out[0]), *out[1:]) if several else change(out)
