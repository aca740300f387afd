"""What the package hands out: the record of a planted fault, and right attentions in other words."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from equivcheck.numerics.dtypes import DTYPES, WIDE

__all__ = ["NOT_BFLOAT16", "WIDE", "Factory", "Fault", "Put", "Right", "inside", "name_of", "rights_of"]

Factory = Callable[[Any], nn.Module]
Put = Callable[[Any, Any], Any]
"""Takes an original and what is wrong, and gives the original gone wrong."""

NOT_BFLOAT16 = (*WIDE, "float16")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong on purpose, which checks should see it, and how it is put around an original.

    Attributes:
        name: What reports call it; faults of several kinds of pairs share one where the same goes wrong.
        summary: What is wrong, in a sentence.
        seen_by: The checks whose property it breaks, best first.
        wrong: An edit of what goes in or comes out, or an attention that takes the original's place.
        around: How `wrong` is put around an original, by the kind of the pair; it is planted in pairs of these kinds.
        kind: What an attention is wrong about, as `dropout`; empty for a fault around any original.
        shows_in: The dtypes in which rounding does not hide it, and in which it is not right.
        needs: An option that both functions must take, or a feature in which both must run.
        under: A transform that the original must have: without it nothing is compared, and nothing can be noticed.
        size: Its size in shares of a value, where it is as large in float64 as in other dtypes; 0 where that is not asked.
        of_candidate: Whether it is put around the candidate, because nothing else knows what a replacement should reach.
    """

    name: str
    summary: str
    seen_by: tuple[str, ...]
    wrong: Callable[..., Any]
    around: Mapping[str, Put] = field(hash=False)
    kind: str = ""
    shows_in: tuple[str, ...] = DTYPES
    needs: str = ""
    under: str = ""
    size: float = 0.0
    of_candidate: bool = False

    @classmethod
    def of(cls, wrong: Callable[..., Any], around: Mapping[str, Put], **fields: Any) -> "Fault":
        """The fault that a class or function is.

        Args:
            wrong: The class or function: its name is the name, its docstring the summary, where `fields` have no other.
            around: How it is put around an original, by the kind of the pair.
            fields: The other fields of the record; `seen_by` must be among them.
        """
        name = fields.pop("name", "") or name_of(wrong)
        summary = fields.pop("summary", "") or summary_of(wrong)
        return cls(name, summary, wrong=wrong, around=around, **fields)

    @property
    def attention(self) -> Factory:
        """Of a fault of the inside: the attention that has it."""
        return self.wrong

    def put_around(self, original: Any, kind: str) -> Any:
        """An original gone wrong.

        Args:
            original: What a pair of this kind has: a factory, a function, or a replacement.
            kind: The kind of the pair.

        Raises:
            KeyError: The fault is not planted in pairs of this kind.
        """
        return self.around[kind](original, self.wrong)


@dataclass(frozen=True)
class Right:
    """An attention that computes the same function as the original in other words."""

    name: str
    summary: str
    attention: Factory


def name_of(thing: Callable[..., object]) -> str:
    """The kebab-case name of a class or function: `ScaleOfTheEmbedding` is "scale-of-the-embedding"."""
    words = re.sub(
        r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])|(?<![Ff]loat)(?<=[a-z])(?=[0-9])", "-", thing.__name__
    )
    return words.replace("_", "-").lower()


def summary_of(thing: Callable[..., object]) -> str:
    """The docstring on one line."""
    return " ".join((inspect.getdoc(thing) or "").split())


def in_the_place_of(original: Factory, attention: Factory) -> Factory:
    """The attention, whatever the original is."""
    return attention


def inside(kind: str, attention: type[nn.Module], *, seen_by: tuple[str, ...], **fields: Any) -> Fault:
    """A fault of the shipped attention's inside.

    Args:
        kind: What it is about.
        attention: A class of the contract of `CausalSelfAttention`: its name is the name, its docstring the summary.
        seen_by: The checks whose property it breaks, best first.
        fields: The other fields of the record.
    """
    return Fault.of(attention, {"module": in_the_place_of}, kind=kind, seen_by=seen_by, **fields)


def rights_of(*classes: type[nn.Module]) -> tuple[Right, ...]:
    """One right attention for each class: its name is the name, its docstring the summary."""
    return tuple(Right(name_of(cls), summary_of(cls), cls) for cls in classes)
