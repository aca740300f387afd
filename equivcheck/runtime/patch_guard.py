"""What a replacement must leave alone beside the model, the classes of its modules and what these call: noticed and undone."""

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
    """Inside, whatever is set on the classes of the model's modules, and on the functions beside them, is for this time only.

    Gives a list that has the names of what was set once the block has ended.
    """
    kinds = {kind for module in model.modules() for kind in type(module).__mro__ if kind is not object}
    beside = {sys.modules[kind.__module__] for kind in kinds if kind.__module__ in sys.modules}
    holders: list[type | types.ModuleType] = [*kinds, *beside, F, torch]
    before = {id(holder): dict(vars(holder)) for holder in holders}
    changed: list[str] = []
    try:
        yield changed
    finally:
        for holder in holders:
            changed += [name for name in _restore(holder, before[id(holder)]) if name not in changed]


def _restore(holder: type | types.ModuleType, before: dict[str, object]) -> Iterator[str]:
    whose = f"{holder.__module__}.{holder.__qualname__}" if isinstance(holder, type) else holder.__name__
    now = dict(vars(holder))
    for name, value in before.items():
        if now.get(name) is not value and (callable(value) or isinstance(holder, type)) and not _special(name):
            setattr(holder, name, value)
            yield f"{whose}.{name}"
    if isinstance(holder, type):
        for name in now.keys() - before.keys():
            if not _special(name):
                delattr(holder, name)
                yield f"{whose}.{name}"


def _special(name: str) -> bool:
    """Names that Python itself sets, when a class is looked at or subclassed."""
    return name.startswith("__") and name not in ("__call__", "__init__", "__getattr__", "__setattr__")
