"""Comparisons that pass, in full: a check leaves out what a ratio is made of, except where that is asked for."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from equivcheck.numerics.comparison import Comparison
from equivcheck.numerics.mismatch_words import describe_pass

__all__ = ["in_full", "is_wanted", "keep", "made_of"]

_kept: list[Comparison] | None = None


@contextmanager
def in_full() -> Iterator[list[Comparison]]:
    """Inside, the worst tensor of each comparison that passes is kept in the list, with its numbers at every level."""
    global _kept
    before, _kept = _kept, []
    try:
        yield _kept
    finally:
        _kept = before


def is_wanted() -> bool:
    """Whether comparisons that pass are wanted in full."""
    return _kept is not None


def keep(comparison: Comparison) -> None:
    """Keep a comparison that passes."""
    if _kept is not None:
        _kept.append(comparison)


def made_of(where: str, compared: Sequence[Comparison]) -> str:
    """What the largest ratio of a tensor is made of, in lines; empty if none of these comparisons is that of it."""
    of_tensor = [comparison for comparison in compared if comparison.name == where]
    return describe_pass(max(of_tensor, key=lambda comparison: comparison.ratio)) if of_tensor else ""
