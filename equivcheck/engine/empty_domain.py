"""The refusal of a domain in which no check has a case, or in which hardly any drawn case lies."""

from collections.abc import Iterable, Mapping, Sequence

from equivcheck.cases.case import Case
from equivcheck.cases.domain import Domain
from equivcheck.cases.domain_advice import advice_on
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
        UsageError: No check has a case in the domain, or hardly any case is accepted.
    """
    chosen = list(checks)
    if not any(classes(check, subject, dtypes, planned[check.name]) for check in chosen if check.judges):
        raise UsageError(
            f"domain {subject.domain.text!r} has no case for {', '.join(check.name for check in chosen)}, of a "
            f"{subject.kind} in {', '.join(dtypes)}: {advice_on(subject.domain)}"
        )
    if not subject.domain.functions:
        return  # an expression is solved: what is drawn is inside
    sampled, accepted = 0, 0

    def counted(case: Case) -> None:
        nonlocal sampled, accepted
        sampled += 1
        accepted += subject.domain.accepts(case)

    # what was learned of the functions shapes the tables; the functions themselves are asked here
    learned = Domain("learned", subject.domain.conditions, device=subject.domain.device)
    draw_cases(cases(CaseSpace(dtypes=list(dtypes), domain=learned)), _SAMPLED, 0, counted)
    if accepted < _LEAST * sampled:
        raise UsageError(
            f"domain {subject.domain.text!r} accepts {accepted} of {sampled} cases, and 1 % are needed: "
            "say the conditions on fields as an expression, such as 'head_size in (64, 128)', which is solved"
        )
