"""Changes that make a field of a case simpler, the greatest steps first."""

from collections.abc import Iterator
from typing import Any

from equivcheck.cases.words import LAYOUTS, REGIMES
from equivcheck.numerics.dtypes import DTYPES

__all__ = [
    "Changes",
    "earlier_words",
    "eval_mode",
    "fewer_steps",
    "no_spare_block",
    "nothing",
    "shorter_keys",
    "smaller",
]

Changes = dict[str, Any]
SIMPLEST_FIRST = {"dtype": DTYPES, "regime": REGIMES, "layout": LAYOUTS}


def earlier_words(case: Any, name: str) -> Iterator[Changes]:
    """The simpler words, which come earlier in the order."""
    order = SIMPLEST_FIRST[name]
    for value in order[: order.index(getattr(case, name))]:
        yield {name: value}


def nothing(case: Any, name: str) -> Iterator[Changes]:
    """Zero, or the empty word."""
    value = getattr(case, name)
    if value:
        yield {name: type(value)()}


def eval_mode(case: Any, name: str) -> Iterator[Changes]:
    """Eval mode, if nothing is dropped."""
    if case.training and not case.attn_pdrop and not case.resid_pdrop:
        yield {name: False}


def shorter_keys(case: Any, name: str) -> Iterator[Changes]:
    """As many keys as queries, and fewer of them."""
    yield from nothing(case, name)
    for length in (1, 2, 3, case.kv_len - 1):
        if 0 < length < case.kv_len:
            yield {name: length}


def fewer_steps(case: Any, name: str) -> Iterator[Changes]:
    """The steps without one of them."""
    for at in range(len(case.steps)):
        yield {name: case.steps[:at] + case.steps[at + 1 :]}


def smaller(case: Any, name: str) -> Iterator[Changes]:
    """Halves toward 1 first, then one less, so that a search that repeats this ends at the smallest failing size."""
    size = getattr(case, name)
    spare = case.block_size - case.seq_len
    for value in dict.fromkeys((1, 2, 3, *(size - (size >> k) for k in range(1, 10)), size - 1)):
        if 0 < value < size and not (name == "n_head" and case.kv_heads and value % case.kv_heads):
            yield {name: value, **({"block_size": value + spare} if name == "seq_len" else {})}


def no_spare_block(case: Any, name: str) -> Iterator[Changes]:
    """A block no longer than the sequence."""
    if case.block_size > case.seq_len:
        yield {name: case.seq_len}
