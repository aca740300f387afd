"""The limits within which cases are drawn, and the tables of sizes."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from equivcheck.cases.domain import Domain
from equivcheck.cases.words import LAYOUTS, MASKS, REGIMES
from equivcheck.numerics.dtypes import DTYPES

__all__ = ["CaseSpace", "sizes"]

_TILES = (16, 32, 64, 128, 256, 512)


@cache
def sizes(largest: int, *, typical: int, smallest: int = 1) -> Sequence[int]:
    """The sizes `smallest` … `largest`, ascending, each at least once.

    Small sizes, edges of tiles ±1 and sizes up to `typical` are repeated.
    """
    edges = {1, 2, 3, *(tile + step for tile in _TILES for step in (-1, 0, 1))}
    table: list[int] = []
    for size in range(smallest, largest + 1):
        weight = 1
        if size <= typical:
            weight = max(1, largest // typical)
        if size in edges:
            weight = 4 * max(1, largest // max(size, typical))
        table.extend([size] * weight)
    return tuple(table)


@dataclass(frozen=True, kw_only=True)
class CaseSpace:
    """Limits within which cases are drawn.

    Attributes:
        rates: Dropout rates in eval mode, where they must have no effect.
        train_rates: Dropout rates in train mode.
        training: True for train mode alone, False for eval mode alone, None for both.
        features: Keys of `features.FEATURES`: how keys and values may differ from queries, and which masks are
            possible.
        head_sizes: The only head sizes; empty for all within the limits.
        max_scores: The greatest B * H * T * T for B * H > 1, so that no case takes long.
        steps: The letters to draw from.
        max_chunks: The greatest T / D, the number of runs that reading a mask takes.
        domain: The cases that are allowed; None for all. Where no case within the limits is inside, limits give way to
            the nearest values that are.
        pinned: Names of a domain whose limits do not give way.
    """

    dtypes: Sequence[str] = DTYPES
    regimes: Sequence[str] = REGIMES
    layouts: Sequence[str] = LAYOUTS
    min_seq_len: int = 1
    max_seq_len: int = 512
    min_batch_size: int = 1
    max_batch_size: int = 4
    min_heads: int = 1
    max_heads: int = 8
    min_head_size: int = 1
    max_head_size: int = 128
    training: bool | None = None
    rates: Sequence[float] = (0.0, 0.1, 0.5)
    train_rates: Sequence[float] = (0.0,)
    n_layers: Sequence[int] = (0,)
    vocab_sizes: Sequence[int] = (2, 17, 73)
    is_causal: Sequence[bool] = (True,)
    scales: Sequence[float | None] = (None,)
    steps: str = ""
    max_chunks: int | None = None
    features: frozenset[str] = frozenset()
    masks: Sequence[str] = MASKS
    head_sizes: Sequence[int] = ()
    max_scores: int = 2**17
    domain: Domain | None = None
    pinned: frozenset[str] = frozenset()

    def but(self, **changes: Any) -> "CaseSpace":
        """The same space with some limits changed."""
        return replace(self, **changes)
