"""The fields of a case that are varied alone: the values of a first look, all values of the field, and how one is put.

A first look costs a few milliseconds a value. All values are tried only of a field in which it met a refusal.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from equivcheck.cases.case import Case
from equivcheck.cases.words import LAYOUTS
from equivcheck.pairs.pair import Pair

__all__ = ["Factor", "factors_of", "put", "table_of"]

_EDGES = tuple(tile + step for tile in (128, 256, 512) for step in (-1, 0, 1))
_SIZES = tuple(sorted({*range(1, 131), *range(192, 513, 64), *_EDGES}))
_OF_A_MODEL = 130


@dataclass(frozen=True, kw_only=True)
class Factor:
    """One field of a case.

    Attributes:
        name: Its name.
        look: The values of the first look.
        table: All values.
    """

    name: str
    look: Sequence[Any]
    table: Sequence[Any]


_FACTORS = (
    Factor(name="head_size", look=(1, 2, 3, 8, 12, 24, 32, 64, 80, 96, 128, 256), table=_SIZES),
    Factor(name="seq_len", look=(1, 2, 3, 7, 16, 17, 33, 64, 65, 100, 128, 257, 512), table=_SIZES),
    Factor(name="n_head", look=(1, 2, 3, 4, 8, 12), table=(*range(1, 33), 48, 64, 65)),
    Factor(name="batch_size", look=(1, 2, 3, 4), table=range(1, 18)),
    Factor(name="training", look=(False, True), table=(False, True)),
    Factor(name="layout", look=LAYOUTS, table=LAYOUTS),
)
_OF_MODULES = (Factor(name="block_size", look=(0, 1, 7, 64), table=(0, 1, 7, 64)),)  # more than the sequence has
_OF_FUNCTIONS = (
    Factor(name="is_causal", look=(True, False), table=(True, False)),
    Factor(name="kv_len", look=(1, 3, 33, 64, 100, 128, 129, 256), table=_SIZES),
    Factor(name="value_size", look=(1, 5, 24, 32, 64), table=_SIZES),
)
_NEEDS = {"kv_len": {"lengths", "causal lengths"}, "value_size": {"value size"}}
_OF_CANDIDATES = ("head_size", "seq_len", "is_causal", "kv_len", "value_size")
_ANY = {factor.name: factor for factor in (*_FACTORS, *_OF_MODULES, *_OF_FUNCTIONS)}


def table_of(name: str) -> Sequence[Any]:
    """All values of a field; none if it has no table of its values."""
    return () if name not in _ANY or name == "block_size" else _ANY[name].table


def factors_of(subject: Pair, *, candidate: bool = False) -> Iterator[Factor]:
    """The factors of a pair's kind, options and features; for a candidate those in which it may refuse values."""
    function = subject.traits.function
    for factor in (*_FACTORS, *(_OF_FUNCTIONS if function else _OF_MODULES)):
        if candidate and factor.name not in _OF_CANDIDATES:
            continue
        if factor.name == "is_causal" and "is_causal" not in subject.options:
            continue
        if factor.name in _NEEDS and not _NEEDS[factor.name] & subject.features:
            continue
        if factor.name == "layout" and subject.traits.whole_model:
            continue
        if subject.traits.whole_model and factor.table is _SIZES:
            yield Factor(
                name=factor.name,
                look=[value for value in factor.look if value <= _OF_A_MODEL],
                table=[value for value in factor.table if value <= _OF_A_MODEL],
            )
            continue
        yield factor


def put(case: Case, name: str, value: Any) -> Case:
    """The case with a value of one field, and no other change but that it stays a case."""
    if name == "seq_len":
        spare = case.block_size - case.seq_len
        return case.but(seq_len=value, block_size=value + spare)
    if name == "block_size":
        return case.but(block_size=case.seq_len + value)
    if name == "kv_len":
        return case.but(kv_len=0 if value == case.seq_len else value)
    if name == "value_size":
        return case.but(value_size=0 if value == case.head_size else value)
    return case.but(**{name: value})
