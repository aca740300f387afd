"""Rules of two fields: from a case that the side refuses, as little as possible is left different from the anchor."""

from collections.abc import Sequence
from itertools import islice
from typing import Any

from equivcheck.cases.case import Case
from equivcheck.engine.discovery.factors import Factor, put
from equivcheck.engine.discovery.rules import product_bound, rounded
from equivcheck.engine.discovery.single_fields import Refused, rule_of_field, simplest
from equivcheck.engine.discovery.trials import Trials

__all__ = ["made_of_two", "rule_from", "value_of"]

_ACROSS = 7  # values of each of two fields in a table of both
_EXACTLY = 300  # trials that make the bound on a product exact
_ALIKE = ({"kv_len", "seq_len"}, {"value_size", "head_size"})
"""Fields of which one follows the other: what is refused of one may be allowed with another value of the other."""


def rule_from(trials: Trials, factors: Sequence[Factor], anchor: Case, refused: Case) -> Refused | None:
    """The rule of one or two fields that keeps a refused case out; None if it takes more fields than two.

    Args:
        trials: The side.
        factors: The fields of which a rule is made.
        anchor: A case with which the side runs.
        refused: A case that the side refuses.
    """
    reason = trials.refusal(refused) or ""
    case = _onto(anchor, refused, factors)
    if not trials.refusal(case):
        return None  # it takes a field of which no rule is made
    left = []
    for factor in factors:
        nearer = put(case, factor.name, value_of(anchor, factor.name))
        if nearer == case:
            continue
        if trials.refusal(nearer):
            case = nearer
        else:
            left.append(factor)
    if len(left) == 1:
        (factor,) = left
        value = value_of(case, factor.name)
        wider = Factor(name=factor.name, look=(*factor.look, value), table=factor.table)
        return rule_of_field(trials, wider, anchor)
    if len(left) != 2:
        return None
    one, other = left
    return _made_of(trials, anchor, case, one, other, reason)


def made_of_two(trials: Trials, factors: Sequence[Factor], anchor: Case, one: Refused) -> Refused | None:
    """The rule of two fields of which a rule of one field is a part; None if it holds whatever another field is.

    Args:
        trials: The side.
        factors: The fields of which a rule is made.
        anchor: A case with which the side runs.
        one: A rule of one field that holds beside the anchor.
    """
    first = next(factor for factor in factors if factor.name == one.fields[0])
    values = dict.fromkeys((*first.look, *first.table))
    refused = next((c for v in values if trials.refusal(c := put(anchor, first.name, v))), None)
    if refused is None:
        return None
    for other in factors:
        if other.name == first.name or {first.name, other.name} in _ALIKE:
            continue
        for value in other.look:
            if value != value_of(anchor, other.name) and trials.runs(put(refused, other.name, value)):
                return _made_of(trials, anchor, refused, first, other, one.reason)
    return None


def _made_of(trials: Trials, anchor: Case, refused: Case, one: Factor, other: Factor, reason: str) -> Refused | None:
    rule = _of_product(trials, anchor, refused, one, other) or _of_either(trials, refused, one, other)
    return Refused(rule, reason, (one.name, other.name)) if rule else None


def value_of(case: Case, name: str) -> Any:
    """The value of a field as `put` takes it."""
    if name == "block_size":
        return case.block_size - case.seq_len
    if name == "kv_len":
        return case.kv_len or case.seq_len
    if name == "value_size":
        return case.value_size or case.head_size
    return getattr(case, name)


def _onto(anchor: Case, refused: Case, factors: Sequence[Factor]) -> Case:
    """The anchor with the values that the refused case has in these fields."""
    case = anchor
    for factor in factors:
        if factor.name in ("kv_len", "value_size"):
            case = case.but(**{factor.name: getattr(refused, factor.name)})
        else:
            case = put(case, factor.name, value_of(refused, factor.name))
    return case


def _some(values: Sequence[int], value: int) -> list[int]:
    """A few values of a table, spread by their size, and this one."""
    powers = [v for v in values if v & (v - 1) == 0]
    return sorted({*powers[:_ACROSS], value})


def _of_product(trials: Trials, anchor: Case, refused: Case, one: Factor, other: Factor) -> str:
    """A bound on the product of two sizes; empty if that does not explain all trials."""
    first, second = value_of(refused, one.name), value_of(refused, other.name)
    if not (type(first) is int and type(second) is int) or "block_size" in (one.name, other.name):
        return ""
    across = [(a, b) for a in _some(one.table, first) for b in _some(other.table, second)]
    known = {(a, b): trials.refusal(put(put(anchor, one.name, a), other.name, b)) for a, b in across}
    runs = {sizes: refusal == "" for sizes, refusal in known.items() if refusal is not None}
    bound = product_bound(runs)
    if bound is None:
        return ""
    most = max(a * b for (a, b), passed in runs.items() if passed)
    least = min(a * b for (a, b), passed in runs.items() if not passed)
    between = sorted(
        {(a * b, a, b) for a in one.table for b in other.table if most < a * b < least}, key=lambda sizes: sizes[0]
    )
    for product, a, b in islice(_halving(between), _EXACTLY):
        if most < product < least:
            refusal = trials.refusal(put(put(anchor, one.name, a), other.name, b))
            if refusal == "":
                most = product
            elif refusal is not None:
                least = product
    return f"{one.name} * {other.name} <= {rounded(most, least)}"


def _halving(sizes: Sequence[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """The middle of a list, then the middles of its halves, and so on."""
    order, parts = [], [sizes]
    while parts:
        parts = [part for part in parts if part]
        order += [part[len(part) // 2] for part in parts]
        parts = [half for part in parts for half in (part[: len(part) // 2], part[len(part) // 2 + 1 :])]
    return order


def _of_either(trials: Trials, refused: Case, one: Factor, other: Factor) -> str:
    """A condition on one field or on the other one, each tried where the other field has its refused value."""
    conditions = []
    for factor in (one, other):
        if factor.name == "block_size":
            return ""
        runs = {}
        for value in dict.fromkeys((*factor.table, *factor.look, value_of(refused, factor.name))):
            case = put(refused, factor.name, value)
            if trials.refusal(case) is not None:
                runs[value] = trials.runs(case)
        if not any(runs.values()) or all(runs.values()):
            return ""
        conditions.append(simplest(factor.name, runs, refused))
    return " or ".join(f"({text})" if " and " in text else text for text in conditions)
