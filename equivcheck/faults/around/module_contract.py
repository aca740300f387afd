"""Faults around a module that break its contract, or show only at lengths beyond many originals."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from equivcheck.faults.around import edits
from equivcheck.faults.around.module import EDITED_OUTPUT
from equivcheck.faults.base import Factory, Fault

__all__ = ["MODULES", "adapter_ignored", "edited_module", "parameter_renamed", "submodule_not_called"]


def edited_module(factory: Factory, edit: Callable[[nn.Module], nn.Module]) -> Factory:
    """A factory of the same modules, each of which is edited when it is built."""
    return partial(_edited, factory, edit)


def _edited(factory: Factory, edit: Callable[[nn.Module], nn.Module], config: Any) -> nn.Module:
    return edit(factory(config))


EDITED_MODULE = {"module": edited_module}


def parameter_renamed(module: nn.Module) -> nn.Module:
    """The first parameter has another name, so that checkpoints do not load."""
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
    """A module that is put in the place of a submodule with parameters is not called: the old submodule is."""
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


MODULES = (
    Fault.of(edits.tokens_past_1024_off, EDITED_OUTPUT, seen_by=("long",), shows_in=("float32",)),
    Fault.of(parameter_renamed, EDITED_MODULE, seen_by=("checkpoint",)),
    Fault.of(submodule_not_called, EDITED_MODULE, seen_by=("interface",)),
    Fault.of(edits.softmax_spelled_out, EDITED_OUTPUT, seen_by=("backend",)),
    Fault.of(edits.scores_made_a_hundred_times, EDITED_OUTPUT, seen_by=("memory",)),
    Fault.of(adapter_ignored, EDITED_MODULE, seen_by=("interface",)),
)
