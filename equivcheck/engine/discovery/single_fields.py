"""Rules of one field: each is varied alone from a case with which the side runs."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from equivcheck.cases.case import Case
from equivcheck.cases.domain import Domain
from equivcheck.engine.discovery.factors import Factor, put
from equivcheck.engine.discovery.rules import condition
from equivcheck.engine.discovery.trials import Trials

__all__ = ["Refused", "rule_of_field", "rules_of_fields", "simplest"]

_OTHERS = {"kv_len": "seq_len", "value_size": "head_size"}
_TIMES = (2, 4)


@dataclass(frozen=True)
class Refused:
    """A rule of the cases that a side runs, and the exception with which it refuses another one.

    Attributes:
        rule: An expression in the grammar of domains.
        reason: The first exception.
        fields: The fields in the rule.
    """

    rule: str
    reason: str
    fields: tuple[str, ...]


def rules_of_fields(
    trials: Trials, factors: Iterable[Factor], anchor: Case, inside: Callable[[Case], bool] = lambda case: True
) -> Iterator[Refused]:
    """The rule of each field in which the side refuses a value, the other fields being those of the anchor.

    Args:
        trials: The side.
        factors: The fields.
        anchor: A case with which the side runs.
        inside: Whether a case is one that is asked of the side.
    """
    for factor in factors:
        refused = rule_of_field(trials, factor, anchor, inside)
        if refused is not None:
            yield refused


def rule_of_field(
    trials: Trials, factor: Factor, anchor: Case, inside: Callable[[Case], bool] = lambda case: True
) -> Refused | None:
    """The rule of one field; None if the side refuses no value of the first look."""
    looks = (put(anchor, factor.name, value) for value in factor.look)
    reason = next((why for case in looks if inside(case) and (why := trials.refusal(case))), "")
    if not reason:
        return None
    runs: dict[Any, bool] = {}
    for value in dict.fromkeys((*factor.table, *factor.look)):
        case = put(anchor, factor.name, value)
        if inside(case) and trials.refusal(case) is not None:
            runs[value] = trials.runs(case)
    rule = _decided(trials, factor, anchor, inside, simplest(factor.name, runs, anchor), condition(factor.name, runs))
    return Refused(rule, reason, (factor.name,)) if rule else None


def _decided(
    trials: Trials, factor: Factor, anchor: Case, inside: Callable[[Case], bool], related: str, alone: str
) -> str:
    """The relation to another field, or the condition on the field alone that explains what other lengths show.

    At one anchor both explain every value. With another value of the other field they do not.
    """
    other = _OTHERS.get(factor.name)
    if not related or not alone or related == alone or other is None:
        return related
    domains = Domain.parse(related), Domain.parse(alone)
    for times in _TIMES:
        moved = put(anchor, other, times * getattr(anchor, other))
        for value in dict.fromkeys((*factor.look, *factor.table)):
            case = put(moved, factor.name, value)
            of_relation, of_field = (domain.allows(case) for domain in domains)
            if of_relation != of_field and inside(case) and trials.refusal(case) is not None:
                return related if trials.runs(case) == of_relation else alone
    return related


def simplest(name: str, runs: dict[Any, bool], case: Case) -> str:
    """The simplest condition on a field that explains every value: a relation to another field, or one on it alone.

    Args:
        name: The field's name.
        runs: Value -> whether the side runs with it.
        case: The case in which the field was varied.
    """
    related = _related(name, runs, case)
    # the values of `block_size` are distances to another field
    return related or ("" if name == "block_size" else condition(name, runs))


def _related(name: str, runs: dict[Any, bool], anchor: Case) -> str:
    """The rule as a relation to another field, where there is one that explains every value."""
    other = {"kv_len": anchor.seq_len, "value_size": anchor.head_size, "block_size": 0}.get(name)
    if other is None:
        return ""
    against = {"kv_len": "seq_len", "value_size": "head_size", "block_size": "seq_len"}[name]
    relations: tuple[tuple[str, Callable[[int], bool]], ...] = (
        ("==", lambda value: value == other),
        (">=", lambda value: value >= other),
        ("<=", lambda value: value <= other),
        (">", lambda value: value > other),
    )
    for sign, holds in relations:
        if all(holds(value) == ran for value, ran in runs.items()):
            return f"{name} {sign} {against}"
    return ""
