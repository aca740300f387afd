"""Whether the domain of a report is as wide as it must be: decided over a grid of cases, without torch."""

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

from equivcheck.cases.domain import IMPORTS, Domain
from equivcheck.cases.words import MASKS
from equivcheck.engine.gate.sources import AGAIN
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.report.model import Report

__all__ = ["narrowed", "too_narrow"]

_SIZES: Mapping[str, tuple[int, ...]] = {
    "head_size": (1, 2, 3, 8, 16, 32, 64, 80, 96, 128),
    "seq_len": (1, 2, 7, 16, 33, 64, 128, 256),
    "n_head": (1, 2, 3, 4, 8, 12),
    "batch_size": (1, 2, 3),
    "kv_len": (1, 2, 16, 33, 64, 128, 256),
    "kv_heads": (1, 2, 4),
    "value_size": (1, 3, 16, 64, 128),
    "block_size": (1, 16, 33, 128, 256),
}
_WORDS: Mapping[str, tuple[Any, ...]] = {
    "dtype": tuple(DTYPES),
    "mask": tuple(MASKS),
    "is_causal": (True, False),
    "training": (False, True),
    "layout": ("contiguous", "transposed"),
}
_DEFAULTS = {"kv_len": "seq_len", "kv_heads": "n_head", "value_size": "head_size", "block_size": "seq_len"}
_LARGEST = 1024  # numbers in an expression that are sizes
_MOST = 200_000  # cases of the grid


def too_narrow(report: Report, required: str) -> Iterator[str]:
    """The reason to refuse a report whose domain leaves out a case that is required.

    Args:
        report: The report.
        required: The domain that it must have, as an expression.

    Raises:
        UsageError: `required` is no expression of fields of a case.
    """
    wanted = Domain.parse(required)
    if not report.domain or report.domain == wanted.text:
        return
    allow = f"{AGAIN} with that domain, or allow this one with --require-domain {report.domain!r}"
    if IMPORTS.fullmatch(report.domain):
        yield f"its domain is the function {report.domain}, and {required!r} is required; {allow}"
        return
    missing = _outside(Domain.parse(report.domain), wanted)
    if missing is not None:
        case = ", ".join(f"{name} {value}" for name, value in missing.items())
        yield f"its domain {report.domain!r} leaves out {case}, which {required!r} requires; {allow}"


def narrowed(report: Report) -> Iterator[str]:
    """A note on the domain of a report; none if every case is in it."""
    if report.domain:
        yield f"judged for {report.domain} alone; --require-domain says which cases must be judged"


def _outside(domain: Domain, wanted: Domain) -> dict[str, Any] | None:
    """The first case of the grid that is wanted and not in the domain, by the names that the two have."""
    nodes = (*domain.conditions, *wanted.conditions)
    names = sorted({name for node in nodes for name in node.names} & {*_SIZES, *_WORDS})
    numbers = {int(n) for node in nodes for n in node.constants if 1 <= n <= _LARGEST}
    near = {size + step for size in numbers for step in (-1, 0, 1) if size + step > 0}
    needed = sorted({*names, *(_DEFAULTS[name] for name in names if name in _DEFAULTS)})
    tables = [sorted({*_SIZES[name], *near}) if name in _SIZES else list(_WORDS[name]) for name in needed]
    for count, values in enumerate(product(*tables)):
        if count > _MOST:
            break
        case = dict(zip(needed, values, strict=True))
        if wanted.may_allow(case) and not domain.may_allow(case):
            return case
    return None
