"""Faults around a module that take its contract away, or show at lengths where an original does not run."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.faults.around.edits import spelled_out

__all__ = ["MODULES", "adapter_ignored", "around_module", "parameter_renamed", "submodule_not_called"]


def around_module(factory: Callable[..., Any], plant: Callable[[nn.Module], nn.Module], config: Any) -> nn.Module:
    return plant(factory(config))


def parameter_renamed(module: nn.Module) -> nn.Module:
    """The first parameter is kept under another name, so that checkpoints do not load."""
    path, _, name = next(n for n, _ in module.named_parameters()).rpartition(".")
    owner = module.get_submodule(path)
    owner._parameters[f"{name}_renamed"] = owner._parameters[name]
    return module


def submodule_not_called(module: nn.Module) -> nn.Module:
    """The first submodule with parameters is run without its hooks."""
    for child in module.modules():
        if child is not module and any(True for _ in child.parameters(recurse=False)):
            child.register_forward_hook = lambda *_, **__: _NoHandle()  # type: ignore[method-assign,assignment]
            break
    return module


def adapter_ignored(module: nn.Module) -> nn.Module:
    """What is put in the place of a submodule with parameters is not called: the one from construction is."""
    built = [
        (parent, name, child)
        for parent in module.modules()
        for name, child in parent.named_children()
        if next(child.parameters(recurse=False), None) is not None
    ]
    forward = module.forward

    def planted_forward(*args: Any, **options: Any) -> Any:
        now = [getattr(parent, name) for parent, name, _ in built]
        for parent, name, child in built:
            setattr(parent, name, child)
        try:
            return forward(*args, **options)
        finally:
            for (parent, name, _), child in zip(built, now, strict=True):
                setattr(parent, name, child)

    module.forward = planted_forward
    return module


class _NoHandle:
    def remove(self) -> None:
        pass


def late_tokens_off(module: nn.Module) -> nn.Module:
    """From the 1025th token on outputs are 1 % off: only long sequences show it."""
    forward = module.forward

    def planted_forward(x: Tensor) -> Tensor:
        y: Tensor = forward(x)
        late = torch.arange(y.size(1), device=y.device).unsqueeze(-1) >= 1024  # (T, 1)
        return torch.where(late, y * 1.01, y)

    module.forward = planted_forward
    return module


def softmax_spelled_out(module: nn.Module) -> nn.Module:
    """The right result, and on the way an attention that no kernel fuses."""
    forward = module.forward
    module.forward = lambda *args, **kwargs: spelled_out(forward(*args, **kwargs))
    return module


MODULES = (
    ("tokens-past-1024-off", ("long",), late_tokens_off),
    ("parameter-renamed", ("checkpoint",), parameter_renamed),
    ("submodule-not-called", ("interface",), submodule_not_called),
    ("softmax-spelled-out", ("backend",), softmax_spelled_out),
    ("adapter-ignored", ("interface",), adapter_ignored),
)
