"""Changes of a replacement to classes of a model's modules, and to functions beside them, are noticed and undone."""

import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import nn

__all__ = ["classes_restored"]


@contextmanager
def classes_restored(model: nn.Module) -> Iterator[list[str]]:
    """At the end, undo every assignment to the classes of the model's modules, and to the functions beside them.

    Yields a list, which has the names of these assignments after the end of the block.
    """
    kinds = {kind for module in model.modules() for kind in type(module).__mro__ if kind is not object}
    defining_modules = {sys.modules[kind.__module__] for kind in kinds if kind.__module__ in sys.modules}
    holders: list[type | types.ModuleType] = [*kinds, *defining_modules, F, torch]
    before = {id(holder): dict(vars(holder)) for holder in holders}
    changed: list[str] = []
    try:
        yield changed
    finally:
        for holder in holders:
            changed += [name for name in _restore(holder, before[id(holder)]) if name not in changed]


def _restore(holder: type | types.ModuleType, before: dict[str, object]) -> Iterator[str]:
    owner = f"{holder.__module__}.{holder.__qualname__}" if isinstance(holder, type) else holder.__name__
    now = dict(vars(holder))
    for name, value in before.items():
        if now.get(name) is not value and (callable(value) or isinstance(holder, type)) and not _special(name):
            setattr(holder, name, value)
            yield f"{owner}.{name}"
    if isinstance(holder, type):
        for name in now.keys() - before.keys():
            if not _special(name):
                delattr(holder, name)
                yield f"{owner}.{name}"


def _special(name: str) -> bool:
    """Whether Python itself sets the name when it reads or subclasses a class."""
    return name.startswith("__") and name not in ("__call__", "__init__", "__getattr__", "__setattr__")
