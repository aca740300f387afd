"""The cases of a screen: for each check a few, chosen because together they see the most faults of the library."""

from collections.abc import Mapping, Sequence
from typing import Any

from equivcheck.cases.domain_solving import is_possible
from equivcheck.cases.space import CaseSpace
from equivcheck.numerics.dtypes import WIDE

__all__ = ["screened"]

_SEVERAL: dict[str, Any] = {
    "min_seq_len": 37,
    "min_heads": 3,
    "min_batch_size": 2,
    "min_head_size": 16,
    "n_layers": (2, 3),
    "vocab_sizes": (17,),
}
"""Several samples, heads and layers, and more positions than a tile has: the first case of such a space is no trivial one."""
_NARROW: dict[str, Any] = {**_SEVERAL, "min_seq_len": 130, "min_head_size": 64, "dtypes": ("bfloat16",)}
_RECTANGULAR: dict[str, Any] = {**_SEVERAL, "is_causal": (False,), "masks": ("additive",)}
_SMALL_AND_WIDE: dict[str, Any] = {"max_seq_len": 2, "max_head_size": 256, "head_sizes": (256,)}
_MANY_HEADS: dict[str, Any] = {"max_seq_len": 2, "max_heads": 65, "min_heads": 65, "max_head_size": 2}
_MANY_SAMPLES: dict[str, Any] = {"max_seq_len": 2, "max_batch_size": 257, "min_batch_size": 257, "max_head_size": 2}
_SATURATED: dict[str, Any] = {**_SEVERAL, "regimes": ("large_scores",)}
_TIED: dict[str, Any] = {**_SEVERAL, "min_batch_size": 3, "min_heads": 6, "regimes": ("ties",)}
_DEEP: dict[str, Any] = {**_SEVERAL, "n_layers": (3,)}

_CASES: Mapping[str, Sequence[tuple[Mapping[str, Any], int]]] = {
    "output": (
        (_SEVERAL, 1),
        (_NARROW, 1),
        (_SATURATED, 1),
        (_TIED, 1),
        ({"dtypes": ("float64",)}, 1),
        (_MANY_HEADS | {"dtypes": ("float16",)}, 1),
        (_MANY_SAMPLES, 1),
        (_SMALL_AND_WIDE, 1),
        (_RECTANGULAR, 1),
    ),
    "gradients": ((_SEVERAL, 1), (_RECTANGULAR, 1), (_SMALL_AND_WIDE, 1), (_NARROW, 1)),
    "modes": ((_SEVERAL, 4),),
    "dropout": ((_SEVERAL, 1), ({}, 1)),
    "logits": ((_DEEP, 1),),
    "bias": ((_SEVERAL, 1), (_SEVERAL | {"dtypes": ("bfloat16",)}, 1), (_SEVERAL | {"dtypes": ("float16",)}, 1)),
    "long": (({}, 1),),
}
"""Check -> limits of the spaces of its cases, each with a number of cases; the first case of a space is its simplest.

`benchmarks/sightings.py --profile screen` measures which faults they see."""


def screened(name: str, space: CaseSpace) -> list[tuple[CaseSpace, int]]:
    """The spaces of a check in a screen, each with its number of cases.

    Args:
        name: The name of the check.
        space: The space of its cases in other profiles.
    """
    wide = [dtype for dtype in WIDE if dtype in space.dtypes]
    plain = space.but(dtypes=(wide or list(space.dtypes))[:1])
    possible: list[tuple[CaseSpace, int]] = []
    for limits, count in _CASES.get(name, ((_SEVERAL, 1),)):
        one = _within(plain, space, limits)
        if (one, count) not in possible and (one.domain is None or is_possible(one)):
            possible.append((one, count))
    return possible or [(plain, 1)]


def _within(plain: CaseSpace, space: CaseSpace, limits: Mapping[str, Any]) -> CaseSpace:
    """A space with these limits, as far as the check's space reaches; many heads, samples and features go beyond."""
    changes: dict[str, Any] = {name: limit for name, limit in limits.items() if name.startswith("max_")}
    for name, limit in limits.items():
        if name == "head_sizes":
            changes[name] = limit
        elif name.startswith("min_"):
            most = f"max_{name.removeprefix('min_')}"
            changes[name] = max(getattr(space, name), min(limit, changes.get(most, getattr(space, most))))
        elif not name.startswith("max_") and (kept := tuple(v for v in limit if v in getattr(space, name))):
            changes[name] = kept
    return plain.but(**changes)
