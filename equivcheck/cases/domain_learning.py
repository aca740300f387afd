"""What a domain that is a function of a case leaves of each table: learned from its answers."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from equivcheck.cases.case import Case
from equivcheck.cases.domain import Domain
from equivcheck.cases.domain_grammar import Node, parse
from equivcheck.cases.words import LAYOUTS, REGIMES
from equivcheck.errors import UsageError
from equivcheck.numerics.dtypes import DTYPES

__all__ = ["learned"]

_SIZES = (1, 2, 3, 4, 5, 8, 12, 16, 24, 32, 33, 48, 64, 80, 96, 128, 256, 512, 768, 1024, 2048)
_TABLES: Mapping[str, Sequence[Any]] = {
    "seq_len": _SIZES,
    "n_head": _SIZES[:14],
    "head_size": _SIZES[:17],
    "batch_size": _SIZES[:9],
    "dtype": DTYPES,
    "training": (False, True),
    "attn_pdrop": (0.0, 0.1, 0.25, 0.5),
    "regime": REGIMES,
    "layout": LAYOUTS,
    "is_causal": (True, False),
}
_SWEPT: Mapping[str, Sequence[Any]] = {
    "seq_len": range(1, 1025),
    "n_head": range(1, 65),
    "head_size": range(1, 257),
    "batch_size": range(1, 17),
    "dtype": DTYPES,
    "layout": LAYOUTS,
    "regime": REGIMES,
}
_TRIES, _ANCHORS = 20_000, 6


def learned(domain: Domain) -> Domain:
    """The domain, with conditions that each value of some case inside meets; its text stays the same.

    Cases inside are looked for among typical ones. From each, one field at a time is swept: values that are refused
    beside every such case are left out of the tables. Other values are refused case by case.

    Args:
        domain: A domain of functions alone.

    Raises:
        UsageError: No typical case is inside, or a function raised.
    """
    anchors = list(_anchors(domain))
    if not anchors:
        raise UsageError(
            f"domain {domain.text!r} accepts none of {_TRIES} typical cases, such as head_size 64 and 128, seq_len 1 to "
            "2048, each dtype: return True for the cases that the original is meant for"
        )
    conditions: list[Node] = []
    for name, values in _SWEPT.items():
        allowed = {value for value in values if any(_accepts(domain, anchor, name, value) for anchor in anchors)}
        if len(allowed) < len(values):
            words = ", ".join(repr(value) for value in values if value in allowed)
            conditions += parse(f"{name} in ({words},)")
    return replace(domain, conditions=tuple(conditions))


def _anchors(domain: Domain) -> list[Case]:
    drawn = random.Random(0)
    anchors: list[Case] = []
    for _ in range(_TRIES):
        fields = {name: drawn.choice(values) for name, values in _TABLES.items()}
        case = _case(fields)
        if domain.accepts(case):
            anchors.append(case)
            if len(anchors) == _ANCHORS:
                break
    return anchors


def _case(fields: Mapping[str, Any]) -> Case:
    return Case(**{"block_size": fields["seq_len"], **fields})


def _accepts(domain: Domain, anchor: Case, name: str, value: Any) -> bool:
    changes = {name: value} | ({"block_size": value} if name == "seq_len" else {})
    return domain.accepts(anchor.but(**changes))
