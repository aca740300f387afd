"""What the package hands out: wrong attentions, right ones in other words, and faults to plant around any attention."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

__all__ = ["Factory", "Fault", "Plant", "Right", "faults_of", "name_of", "rights_of"]

Factory = Callable[[Any], nn.Module]


@dataclass(frozen=True)
class Fault:
    """An attention that is wrong on purpose; `seen_by` names the checks whose property it breaks, best first."""

    name: str
    summary: str
    seen_by: tuple[str, ...]
    attention: Factory
    kind: str


@dataclass(frozen=True)
class Right:
    """An attention that computes the same function as the original in other words."""

    name: str
    summary: str
    attention: Factory


@dataclass(frozen=True)
class Plant:
    """A fault that needs no knowledge of the inside: `plant(factory)` is a factory of the same modules, gone wrong."""

    name: str
    summary: str
    seen_by: tuple[str, ...]
    plant: Callable[[Factory], Factory]


def name_of(thing: Callable[..., object]) -> str:
    """The kebab-case name of a class or function: `ScaleOfTheEmbedding` is "scale-of-the-embedding"."""
    words = re.sub(
        r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<![Ff]loat)(?<=[a-z])(?=[0-9])", "-", thing.__name__
    )
    return words.replace("_", "-").lower()


def summary_of(thing: Callable[..., object]) -> str:
    """The docstring on one line."""
    return " ".join((inspect.getdoc(thing) or "").split())


def faults_of(kind: str, seen_by: Mapping[type[nn.Module], tuple[str, ...]]) -> tuple[Fault, ...]:
    """One fault of `kind` for each class: its name is the name, its docstring the summary."""
    return tuple(Fault(name_of(cls), summary_of(cls), checks, cls, kind) for cls, checks in seen_by.items())


def rights_of(*classes: type[nn.Module]) -> tuple[Right, ...]:
    """One right attention for each class: its name is the name, its docstring the summary."""
    return tuple(Right(name_of(cls), summary_of(cls), cls) for cls in classes)
