"""The refusal of a domain that has no cases, or so few that none would be drawn."""

from collections.abc import Iterable, Mapping, Sequence

from equivcheck.cases.case import Case
from equivcheck.cases.domain import EVERYWHERE, Domain
from equivcheck.cases.domain_solving import allowed_values
from equivcheck.cases.space import CaseSpace
from equivcheck.cases.strategies import cases
from equivcheck.checks import Check
from equivcheck.engine.drawing import draw_cases
from equivcheck.engine.strata import classes
from equivcheck.errors import UsageError
from equivcheck.pairs.pair import Pair

__all__ = ["refuse_an_empty_domain"]

_SAMPLED = 200
_LEAST = 0.01  # of the cases that are drawn
_NEAR = 8  # values in the message


def refuse_an_empty_domain(
    subject: Pair, checks: Iterable[Check], dtypes: Sequence[str], planned: Mapping[str, int]
) -> None:
    """Make sure that at least one of a hundred cases that are drawn is in the pair's domain.

    Args:
        subject: The pair.
        checks: The checks of the run.
        dtypes: The dtypes in which the pair is judged.
        planned: Name of a check -> its number of cases.

    Raises:
        UsageError: No check has a case in the domain, or hardly any is accepted. The message names the condition that
            alone rejects most cases, and the values of the tables near it.
    """
    strategies = [strategy for check in checks for strategy, _ in classes(check, subject, dtypes, planned[check.name])]
    if not strategies:
        raise UsageError(f"domain {subject.domain.text!r} is empty: no case meets it; {_advice(subject.domain)}")
    if not subject.domain.functions:
        return  # an expression is solved: what is drawn is inside
    sampled, accepted = 0, 0

    def counted(case: Case) -> None:
        nonlocal sampled, accepted
        sampled += 1
        accepted += subject.domain.accepts(case)

    # what was learned of the functions shapes the tables, and the functions themselves are asked here
    learned = Domain("learned", subject.domain.conditions, device=subject.domain.device)
    draw_cases(cases(CaseSpace(dtypes=list(dtypes), domain=learned)), _SAMPLED, 0, counted)
    if accepted < _LEAST * sampled:
        raise UsageError(
            f"domain {subject.domain.text!r} accepts {accepted} of {sampled} cases, and 1 % are needed: "
            "say the conditions on fields as an expression, such as 'head_size in (64, 128)', which is solved"
        )


def _advice(domain: Domain) -> str:
    """The condition that alone rejects most cases, and the values of the tables near it."""
    sampled: list[Case] = []
    draw_cases(cases(), _SAMPLED, 0, sampled.append)
    rejected = {
        node: sum(not Domain(node.text, (node,), device=domain.device).allows(case) for case in sampled)
        for node in domain.conditions
    }
    if not rejected:
        return "return True for the cases that the original is meant for"
    worst = max(rejected, key=lambda node: rejected[node])
    share = 100 * rejected[worst] // len(sampled)
    numbers = [number for node in domain.conditions for number in node.constants]
    near = []
    for name in sorted(worst.names - {"device"}):
        values = allowed_values(CaseSpace(domain=EVERYWHERE), name)
        if numbers and all(isinstance(value, int | float) for value in values):
            middle = sum(worst.constants or numbers) / len(worst.constants or numbers)
            values = sorted(sorted(values, key=lambda value: abs(value - middle))[:_NEAR])
        near.append(f"{name} can be {', '.join(repr(value) for value in values[:_NEAR])}")
    return f"{worst.text!r} alone rejects the most, {share} %; near it, {'; '.join(near) or 'there is no value'}"
