"""A reading: one known fault as an edit of the inside of an attention, with parameters."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from equivcheck.engine.causes.carrier import Edit

__all__ = ["Family", "Reading", "Rows"]


@dataclass(frozen=True)
class Reading:
    """One fault with its parameters."""

    id: str
    words: str
    edit: Edit
    parameters: Mapping[str, Any] = field(default_factory=dict)
    needs_scale: bool = False  # whether the attention must be spelled out: keys that the original hides are seen


@dataclass(frozen=True)
class Rows:
    """What the results say before anything is tried.

    Attributes:
        queries: The number T of queries.
        keys: The number S of keys.
        first: The first query whose result differs.
        last: The last one.
        band: The greatest number of keys that a query sees in the original.
        causal: Whether no query of the original sees a later key.
        groups: How many neighbouring heads of queries read one head of keys.
        heads: The number of heads; 0 if it is not known.
        scale: The original's factor of the scores, if it is known.
        width: The number of channels of all heads together.
        rate: The rate of dropout of probabilities.
    """

    queries: int
    keys: int
    first: int
    last: int
    band: int
    causal: bool
    groups: int
    heads: int
    scale: float | None
    width: int
    rate: float


@dataclass(frozen=True)
class Family:
    """A fault with one number, which is fitted."""

    id: str
    make: Callable[[float], Reading]
    smallest: float = 1e-2
    largest: float = 1e2
