"""Findings: the parts of a check's property, each of which fails by itself and can be passed over."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from equivcheck.errors import Mismatch

__all__ = ["finding", "is_passed_over", "passing_over"]

_passed_over: frozenset[str] = frozenset()


@contextmanager
def finding(name: str) -> Iterator[None]:
    """Name the finding of a Mismatch that is raised inside; if it is passed over, go on after the block.

    Args:
        name: One of the check's findings in the catalogue.

    Raises:
        Mismatch: A difference arose inside, and this finding is not passed over.
    """
    try:
        yield
    except Mismatch as mismatch:
        mismatch.finding = mismatch.finding or name
        if mismatch.finding not in _passed_over:
            raise


@contextmanager
def passing_over(names: Iterable[str]) -> Iterator[None]:
    """Inside, differences of these findings are no failures: other findings of the same check are looked for."""
    global _passed_over
    before, _passed_over = _passed_over, frozenset(names)
    try:
        yield
    finally:
        _passed_over = before


def is_passed_over(name: str) -> bool:
    """Whether differences of this finding are no failures now."""
    return name in _passed_over
