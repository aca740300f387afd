"""Cases that are typical of the field: in one of them an original runs that refuses others."""

from collections.abc import Callable, Iterator
from typing import Any

from equivcheck.cases.case import Case
from equivcheck.pairs.kinds import SAMPLE

__all__ = ["TYPICAL", "first_that", "samples"]

_USUAL = Case(batch_size=2, seq_len=128, n_head=2, head_size=64, block_size=128, dtype="bfloat16")

TYPICAL: tuple[Case, ...] = (
    _USUAL,
    _USUAL.but(dtype="float16"),
    _USUAL.but(dtype="float32"),
    _USUAL.but(dtype="float64"),
    _USUAL.but(head_size=128),
    _USUAL.but(head_size=32, dtype="float32"),
    _USUAL.but(head_size=16, seq_len=64, block_size=64, dtype="float32"),
    _USUAL.but(seq_len=64, block_size=64, n_head=4),
    _USUAL.but(seq_len=256, block_size=256),
    _USUAL.but(seq_len=16, block_size=16, n_head=1, batch_size=1, head_size=16, dtype="float32"),
    _USUAL.but(batch_size=1, n_head=1, dtype="float32"),
    _USUAL.but(head_size=80, dtype="float32", training=True),
)
"""Twelve anchors: sizes, dtypes and modes for which attentions are written, the most usual first."""


def samples(**fields: Any) -> Iterator[Case]:
    """The sample on which any original is tried, then the typical cases: for one that refuses small sizes.

    Args:
        fields: Fields that all of them have.
    """
    yield SAMPLE.but(**fields)
    for case in TYPICAL:
        yield case.but(n_layer=SAMPLE.n_layer, vocab_size=SAMPLE.vocab_size, **fields)


def first_that(runs: Callable[[Case], bool], *, full: bool = True) -> Case | None:
    """The first typical case, causal or else full, with which a side runs; None if there is none.

    Args:
        runs: Whether the side runs with a case.
        full: Whether cases that are not causal are tried, too.
    """
    for causal in (True, False)[: 2 if full else 1]:
        for case in TYPICAL:
            if runs(case.but(is_causal=causal)):
                return case.but(is_causal=causal)
    return None
