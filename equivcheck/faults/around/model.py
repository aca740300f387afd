"""Faults around any model of token ids."""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.cases.names import CACHES
from equivcheck.faults.around.edits import half_off, last_off, spelled_out, swapped
from equivcheck.faults.around.module_contract import adapter_ignored, parameter_renamed, submodule_not_called
from equivcheck.faults.gradient_edits import rewritten_parameter
from equivcheck.faults.inside.strides import misread

__all__ = ["MODELS", "around_model"]


def around_model(factory: Callable[..., Any], plant: Callable[..., Any], config: Any) -> nn.Module:
    module: nn.Module = factory(config)
    forward = module.forward
    contract = {"adapter_ignored", "parameter_renamed", "submodule_not_called"}
    if getattr(plant, "__name__", "") in contract:
        return plant(module)  # type: ignore[no-any-return]  # a plant of the contract takes and returns a module

    def planted_forward(idx: Tensor, *rest: Any, **options: Any) -> Any:
        return plant(module, forward, idx, *rest, **options)

    functools.update_wrapper(planted_forward, forward)  # it takes what the model takes
    module.forward = planted_forward
    return module


def _logits(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def planted_model(module: nn.Module, forward: Callable[..., Any], *given: Any, **options: Any) -> Any:
        found = forward(*given, **options)
        if isinstance(getattr(found, "logits", None), Tensor):
            found.logits = change(found.logits)
            return found
        return (change(found[0]), *found[1:]) if isinstance(found, tuple | list) else change(found)

    return planted_model


def _first_for_all(y: Tensor) -> Tensor:
    return y[:1].expand_as(y).clone()


def _past_16_off(y: Tensor) -> Tensor:
    late = torch.arange(y.size(-2), device=y.device).unsqueeze(-1) >= 16
    return torch.where(late, y * 1.05, y)


def _parameter(which: int, factor: float) -> Callable[..., Any]:
    def planted_model(module: nn.Module, forward: Callable[..., Any], *given: Any, **options: Any) -> Any:
        matrices = [name for name, parameter in module.named_parameters() if parameter.dim() > 1]
        path, _, name = matrices[which].rpartition(".")
        with rewritten_parameter(module.get_submodule(path), name, lambda g: g * factor):
            return forward(*given, **options)

    return planted_model


def _next_token(module: nn.Module, forward: Callable[..., Any], idx: Tensor, *rest: Any, **options: Any) -> Any:
    moved = F.pad(idx[:, 1:], (0, 1)).unsqueeze(-1)
    return _logits(lambda y: y + 0.01 * moved.to(y.dtype))(module, forward, idx, *rest, **options)


def _mode(mode: bool) -> Callable[..., Any]:
    def planted_model(module: nn.Module, forward: Callable[..., Any], *given: Any, **options: Any) -> Any:
        modes = {m: m.training for m in module.modules()}
        module.train(mode)
        try:
            return forward(*given, **options)
        finally:
            for m, training in modes.items():
                m.training = training

    return planted_model


def _drawing(module: nn.Module, forward: Callable[..., Any], idx: Tensor, *rest: Any, **options: Any) -> Any:
    torch.rand((), device=idx.device)
    return forward(idx, *rest, **options)


def _swallowing(module: nn.Module, forward: Callable[..., Any], idx: Tensor, *rest: Any, **options: Any) -> Any:
    try:
        return forward(idx, *rest, **options)
    except (RuntimeError, ValueError, IndexError):
        return torch.zeros(*idx.shape, 2), torch.zeros(())


def _cached_off(module: nn.Module, forward: Callable[..., Any], *given: Any, **options: Any) -> Any:
    cache = next((options[name] for name in CACHES if options.get(name) is not None), None)
    if cache is None:
        return forward(*given, **options)
    return _logits(lambda y: y * 1.05)(module, forward, *given, **options)


def _one_more(module: nn.Module, forward: Callable[..., Any], *given: Any, **options: Any) -> Any:
    found = forward(*given, **options)
    return (*found, None) if isinstance(found, tuple | list) else (found, None)


def _misreading(module: nn.Module, forward: Callable[..., Any], idx: Tensor, *rest: Any, **options: Any) -> Any:
    return forward(idx if idx.is_contiguous() else misread(idx, offset=int(idx.storage_offset())), *rest, **options)


MODELS = (
    ("logits-off-with-a-cache", ("decoding",), _cached_off),
    ("logits-scaled-by-one-in-65536", ("logits",), _logits(lambda y: y * (1 + 2.0**-16))),
    ("logits-through-float32", ("logits",), _logits(lambda y: y.float().to(y.dtype))),
    ("half-precision-wrong", ("logits",), _logits(half_off)),
    ("last-token-two-percent-off", ("logits",), _logits(last_off)),
    ("tokens-past-16-off", ("logits",), _logits(_past_16_off)),
    ("last-two-tokens-swapped", ("logits", "causality"), _logits(swapped)),
    ("first-sample-for-all", ("logits",), _logits(_first_for_all)),
    ("leak-from-the-next-token", ("causality", "logits"), _next_token),
    ("first-weight-gradient-halved", ("logits",), _parameter(0, 0.5)),
    ("last-weight-gradient-lost", ("logits",), _parameter(-1, 0.0)),
    ("second-weight-gradient-one-percent-off", ("logits",), _parameter(1, 1.01)),
    ("logits-negated-when-generating", ("generation",), _logits(lambda y: -y)),
    ("first-weight-gradient-halved-in-training", ("training",), _parameter(0, 0.5)),
    ("training-mode-ignored", ("dropout", "modes"), _mode(False)),
    ("eval-mode-ignored", ("modes", "purity"), _mode(True)),
    ("generator-drawn-from", ("purity",), _drawing),
    ("refusals-swallowed", ("errors",), _swallowing),
    ("parameter-renamed", ("checkpoint",), parameter_renamed),
    ("submodule-not-called", ("interface",), submodule_not_called),
    ("one-more-result", ("interface",), _one_more),
    ("softmax-spelled-out", ("backend",), _logits(spelled_out)),
    ("adapter-ignored", ("interface",), adapter_ignored),
    ("ids-taken-for-contiguous", ("layouts",), _misreading),
)
