"""What is wrong with a domain that has no cases: the condition that rejects most, and the values near it."""

import random

from equivcheck.cases.domain import Domain
from equivcheck.cases.domain_solving import is_possible
from equivcheck.cases.domain_tables import STRICT, Tables
from equivcheck.cases.features import FEATURES
from equivcheck.cases.space import CaseSpace
from equivcheck.errors import UsageError

__all__ = ["advice_on", "refuse_a_contradiction"]

_SAMPLED = 500
_NEAR = 8  # values in the message
_WHOLE = CaseSpace(
    features=frozenset(FEATURES),
    is_causal=(True, False),
    n_layers=(0, 1),
    scales=(None, 0.25, 1.0),
    train_rates=(0.0, 0.1),
)


def refuse_a_contradiction(domain: Domain) -> None:
    """Make sure that some case of some pair is in a domain, as far as its expression tells.

    Raises:
        UsageError: None is. The message names the condition that alone rejects most, and the values near it.
    """
    if not is_possible(_WHOLE.but(domain=domain)):
        raise UsageError(f"domain {domain.text!r} is empty: no case meets it; {advice_on(domain)}")


def advice_on(domain: Domain) -> str:
    """The condition that alone rejects most cases, and the values of the tables near it."""
    if not domain.conditions:
        return "let it return True for the cases that the original is meant for"
    tables, drawn = Tables(_WHOLE, domain), random.Random(0)
    rejected = dict.fromkeys(domain.conditions, 0)
    for _ in range(_SAMPLED):
        values: dict[str, object] = {}
        for name in tables.order:
            values[name] = drawn.choice(tables.of(name, values, STRICT))
        known = domain.known(values)
        for node in rejected:
            rejected[node] += node.value(known) is False
    worst = max(rejected, key=lambda node: rejected[node])
    near = []
    for name in tables.order:
        if name in worst.names:
            table = list(dict.fromkeys(tables.of(name, {}, STRICT)))
            if worst.constants and all(type(value) is int for value in table):
                middle = sum(worst.constants) / len(worst.constants)
                table = sorted(sorted(table, key=lambda value: abs(value - middle))[:_NEAR])
            near.append(f"{name} can be {', '.join(repr(value) for value in table[:_NEAR])}")
    shown = f"; near it, {' and '.join(near)}" if near else ""
    return f"{worst.text!r} alone rejects the most, {100 * rejected[worst] // _SAMPLED} %{shown}"
