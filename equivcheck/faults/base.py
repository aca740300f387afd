"""The records of a planted fault, and of a right attention that is written in another way."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from equivcheck.numerics.dtypes import DTYPES, WIDE
from equivcheck.report.catalogue import listed

__all__ = ["NOT_BFLOAT16", "WIDE", "Factory", "Fault", "Put", "Right", "inside", "name_of", "rights_of"]

Factory = Callable[[Any], nn.Module]
Put = Callable[[Any, Any], Any]
"""Takes an original and the wrong edit or attention, and returns the wrong original."""

NOT_BFLOAT16 = (*WIDE, "float16")


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong on purpose, the checks that should see it, and how it is put around an original.

    Attributes:
        name: Its name in reports; the same fault has one name for several kinds of pairs.
        summary: A sentence that says what is wrong.
        seen_by: The checks whose property it breaks, the best first.
        wrong: An edit of inputs, outputs or gradients, or an attention that takes the place of the original.
        around: How `wrong` is put around an original, by the kind of the pair; it is planted in pairs of these kinds.
        kind: The aspect of an attention that is wrong, such as `dropout`; empty for a fault around any original.
        shows_in: The dtypes in which it is wrong and rounding does not hide it.
        needs: An option that both functions must take, a feature that both must have, or refusals of the original.
        under: A transform that the original must have, because without it the check compares nothing.
        size: Its size as a share of a value, if it is the same in every dtype; 0 if the size does not matter.
        of_candidate: Whether it is put around the candidate, which alone knows the modules that a replacement reaches.
        wrong_at: The level at which it is wrong, if that is not the level of the first check that should see it.
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
    wrong_at: str = ""

    @property
    def level(self) -> str:
        """The level at which it is wrong, by default that of the first check that should see it; empty for a kernel."""
        return self.wrong_at or listed(self.seen_by[0]).level

    @classmethod
    def of(cls, wrong: Callable[..., Any], around: Mapping[str, Put], **fields: Any) -> "Fault":
        """The record of a fault that is a class or function.

        Args:
            wrong: The class or function. Unless `fields` give others, its name is the name and its docstring the
                summary.
            around: How it is put around an original, by the kind of the pair.
            fields: The other fields of the record, with `seen_by` among them.
        """
        name = fields.pop("name", "") or name_of(wrong)
        summary = fields.pop("summary", "") or summary_of(wrong)
        return cls(name, summary, wrong=wrong, around=around, **fields)

    @property
    def attention(self) -> Factory:
        """The attention that has the fault, if it is a fault of the inside."""
        return self.wrong

    def put_around(self, original: Any, kind: str) -> Any:
        """A wrong original.

        Args:
            original: The original of a pair of this kind: a factory, a function, or a replacement.
            kind: The kind of the pair.

        Raises:
            KeyError: The fault is not planted in pairs of this kind.
        """
        return self.around[kind](original, self.wrong)


@dataclass(frozen=True)
class Right:
    """An attention that computes the same function as the original in another way."""

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
    """The attention, in place of any original."""
    return attention


def inside(kind: str, attention: type[nn.Module], *, seen_by: tuple[str, ...], **fields: Any) -> Fault:
    """A fault of the shipped attention's inside.

    Args:
        kind: The aspect that is wrong.
        attention: A class with the contract of `CausalSelfAttention`: its name is the name, its docstring the summary.
        seen_by: The checks whose property it breaks, the best first.
        fields: The other fields of the record.
    """
    return Fault.of(attention, {"module": in_the_place_of}, kind=kind, seen_by=seen_by, **fields)


def rights_of(*classes: type[nn.Module]) -> tuple[Right, ...]:
    """One right attention for each class: its name is the name, its docstring the summary."""
    return tuple(Right(name_of(cls), summary_of(cls), cls) for cls in classes)
