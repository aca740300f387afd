"""The fields that are varied around a failing case, with the values of each: from the tables of cases and the check's space."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from equivcheck.cases.case import Case
from equivcheck.cases.domain_fields import values_of
from equivcheck.cases.factors import KEYS, factors_of, keys_of
from equivcheck.cases.space import CaseSpace
from equivcheck.engine.case_cost import Bounds

__all__ = ["MOST_OF_ONE", "MOST_WORK", "Axis", "affordable", "axes_of", "modes_of", "put", "work_of"]

MOST_WORK = 160.0
"""The work of all variants of a case together, in that of tiny cases."""
MOST_OF_ONE = MOST_WORK / 16
"""That of one of them, unless the case itself costs more."""
_SCORES_OF_A_TINY_CASE = 2**13

_FIELDS: Mapping[str, str] = {
    "batch": "batch_size",
    "length": "seq_len",
    "heads": "n_head",
    "head size": "head_size",
    "keys": "kv_len",
    "groups": "kv_heads",
    "value size": "value_size",
    "dtype": "dtype",
    "causal": "is_causal",
    "mask": "mask",
    "layers": "n_layer",
    "vocabulary": "vocab_size",
    "layout": "layout",
    "regime": "regime",
}
"""A factor of cases -> the name of a domain that it is; the mode is three of them."""
_LIMITS: Mapping[str, str] = {
    "batch_size": "max_batch_size",
    "seq_len": "max_seq_len",
    "n_head": "max_heads",
    "head_size": "max_head_size",
}
_LOOKS = 3  # sizes of the first look
_LONGEST_KEYS = keys_of("many to a few queries", 1, max)


@dataclass(frozen=True)
class Axis:
    """A field that is varied.

    Attributes:
        name: Its name in a domain.
        look: The values of a first look, the most telling first.
        table: All values, ascending, of a number between which there are others; empty if `look` has all.
    """

    name: str
    look: Sequence[Any]
    table: Sequence[int] = ()


def axes_of(space: CaseSpace, base: Case, *, has_weights: bool, covering: bool) -> list[Axis]:
    """The fields that can be varied around a case, those of which a condition is most likely first.

    Args:
        space: The space of the check.
        base: The case.
        has_weights: Whether a side is a module.
        covering: Whether the check takes sizes of every class, beyond the limits of its space.
    """
    axes = []
    for factor in factors_of(space, has_weights=has_weights):
        name = _FIELDS.get(factor.name, "")
        if factor.name == "mode":
            axes += _modes(modes_of(space))
        elif name == "kv_len":
            axes.append(_keys(base))
        elif name == "kv_heads":
            axes.append(Axis(name, [n for n in range(1, base.n_head + 1) if base.n_head % n == 0]))
        elif name in _LIMITS:
            largest = max(max(sizes) for sizes in factor.classes.values())
            most = max(largest if covering else 0, getattr(space, _LIMITS[name]), getattr(base, name))
            axes.append(_size(name, [s for s in factor.classes.values() if min(s) <= most], most))
        elif name:
            values = [value for values in factor.classes.values() for value in values]
            axes.append(Axis(name, [value or base.head_size for value in values] if name == "value_size" else values))
    order = list(_FIELDS.values())
    return sorted(axes, key=lambda axis: order.index(axis.name) if axis.name in order else order.index("dtype"))


def _size(name: str, classes: Sequence[Sequence[int]], most: int) -> Axis:
    """The largest size, the largest of the class in the middle, and the smallest of the second class."""
    look = (most, min(most, max(classes[len(classes) // 2])), min(classes[min(1, len(classes) - 1)]))
    return Axis(name, look[:_LOOKS], range(1, most + 1))


def modes_of(space: CaseSpace) -> list[tuple[bool, float, float]]:
    """The modes of the cases of a space: whether they train, and the rates of both dropouts."""
    factors = [factor for factor in factors_of(space, has_weights=True) if factor.name == "mode"]
    return [mode for factor in factors for modes in factor.classes.values() for mode in modes]


def _modes(modes: Sequence[tuple[bool, float, float]]) -> list[Axis]:
    training, *rates = (sorted(dict.fromkeys(values)) for values in zip(*modes, strict=True))
    axes = [Axis("training", training), Axis("attn_pdrop", rates[0]), Axis("resid_pdrop", rates[1])]
    return [axis for axis in axes if len(axis.look) > 1]


def _keys(base: Case) -> Axis:
    """Numbers of keys of each class, the most of the class first."""
    look = [keys_of(word, base.seq_len, max) or base.seq_len for word in reversed([*KEYS])]
    look = [length for length in dict.fromkeys(look) if 0 < length <= _LONGEST_KEYS]
    return Axis("kv_len", look, range(1, _LONGEST_KEYS + 1))


def put(case: Case, name: str, value: Any, *, alone: frozenset[str]) -> Case | None:
    """The case with another value of one name of a domain; None if it cannot have it.

    Args:
        case: The case.
        name: The name.
        value: Its value.
        alone: The names of `kv_len` and `value_size` that stay as they are where the size varies that they follow.
    """
    changes: dict[str, Any] = {name: value}
    real = values_of(case) | changes
    if name == "seq_len":
        changes["block_size"] = value + case.block_size - case.seq_len
    for follows, of in (("kv_len", "seq_len"), ("value_size", "head_size"), ("kv_heads", "n_head")):
        if name == of and not getattr(case, follows) and follows not in alone:
            continue
        if name in (of, follows):
            changes[follows] = 0 if real[follows] == real[of] else real[follows]
    heads, groups = changes.get("n_head", case.n_head), changes.get("kv_heads", case.kv_heads)
    if groups and heads % groups:
        return None
    return case.but(**changes)


def work_of(case: Case) -> float:
    """The work of a case beside that of a tiny one, from its number of scores alone."""
    scores = case.batch_size * case.n_head * case.seq_len * (case.kv_len or case.seq_len) * max(case.n_layer, 1)
    return 1.0 + scores / _SCORES_OF_A_TINY_CASE


def affordable(case: Case, base: Case, bounds: Bounds, space: CaseSpace, *, has_weights: bool) -> bool:
    """Whether a variant costs no more than a case of a run may, and not many times what the case itself costs.

    Args:
        case: The variant.
        base: The case around which it is.
        bounds: The bounds on the cost of any case.
        space: The space of the check.
        has_weights: Whether a side is a module.
    """
    if space.max_chunks is not None and case.seq_len > space.max_chunks * case.head_size:
        return False
    if work_of(case) > max(MOST_OF_ONE, 2 * work_of(base)):
        return False
    sizes = [
        {
            "batch": one.batch_size,
            "heads": one.n_head,
            "queries": one.seq_len,
            "keys": one.kv_len or one.seq_len,
            "head_size": max(one.head_size, one.value_size),
            "layers": one.n_layer,
        }
        for one in (case, base)
    ]
    within = bounds.allow(**sizes[0], has_weights=has_weights)
    return within or all(value <= sizes[1][name] for name, value in sizes[0].items())
