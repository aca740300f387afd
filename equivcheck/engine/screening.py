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

_CASES: Mapping[str, Sequence[Mapping[str, Any]]] = {
    "output": (_SEVERAL, _NARROW),
    "gradients": (_SEVERAL, _RECTANGULAR),
    "long": ({},),
}
"""Check -> limits of the spaces of its cases; the first case of a space, its simplest, is the one that is run.

`benchmarks/sightings.py --profile screen` measures which faults they see."""


def screened(name: str, space: CaseSpace) -> list[CaseSpace]:
    """The spaces of a check in a screen, one case each.

    Args:
        name: The name of the check.
        space: The space of its cases in other profiles.
    """
    wide = [dtype for dtype in WIDE if dtype in space.dtypes]
    plain = space.but(dtypes=(wide or list(space.dtypes))[:1])
    spaces = [_within(plain, space, limits) for limits in _CASES.get(name, (_SEVERAL,))]
    possible = [one for at, one in enumerate(spaces) if one not in spaces[:at] and (not one.domain or is_possible(one))]
    return possible or [plain]


def _within(plain: CaseSpace, space: CaseSpace, limits: Mapping[str, Any]) -> CaseSpace:
    """A space with these limits, as far as the check's space reaches."""
    changes: dict[str, Any] = {}
    for name, limit in limits.items():
        if name.startswith("min_"):
            size = name.removeprefix("min_")
            changes[name] = max(getattr(space, name), min(limit, getattr(space, f"max_{size}")))
        elif kept := tuple(value for value in limit if value in getattr(space, name)):
            changes[name] = kept
    return plain.but(**changes)
