"""The domain of a pair by trial: the rules of the original, and those of the candidate inside of them."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from equivcheck.cases.case import Case
from equivcheck.cases.domain import EVERYWHERE, Domain
from equivcheck.cases.strategies import CaseSpace, cases
from equivcheck.engine.discovery.compiling import compiles_for_each_shape, few_sizes
from equivcheck.engine.discovery.factors import Factor, factors_of, table_of
from equivcheck.engine.discovery.rotary import accidents_of
from equivcheck.engine.discovery.rules import allowed_to_candidates
from equivcheck.engine.discovery.single_fields import Refused, rules_of_fields
from equivcheck.engine.discovery.small_anchors import made_small
from equivcheck.engine.discovery.trials import Trials
from equivcheck.engine.discovery.two_fields import made_of_two, rule_from
from equivcheck.engine.drawing import draw_cases
from equivcheck.pairs.anchors import TYPICAL, first_that
from equivcheck.pairs.pair import SAMPLE, Pair
from equivcheck.pairs.sides import CANDIDATE, REFERENCE

__all__ = ["Discovered", "discover", "joined"]

_AT_RANDOM = 40
_ROUNDS = 4
_SEED = 20
_SMALL = CaseSpace(max_seq_len=130, max_batch_size=3, max_scores=2**15, regimes=("near_initial",))
_FAST = "float32"
_TIMES_FAST = 6  # as many of the random cases are in float32: arithmetic in half precision is slow on a CPU


@dataclass(frozen=True)
class Discovered:
    """The rules of the two sides.

    Attributes:
        original: The rules of the original.
        candidate: The rules of the candidate, each with the exception outside of it.
        few_sizes: A rule of few sizes from which cases are drawn, if a side compiles for each shape.
    """

    original: tuple[Refused, ...] = ()
    candidate: tuple[Refused, ...] = ()
    few_sizes: str = ""


def joined(rules: Iterable[str]) -> str:
    """Rules of which each must hold, as one expression; empty if there are none."""
    texts = list(dict.fromkeys(rules))
    return " and ".join(f"({text})" if " or " in text and len(texts) > 1 else text for text in texts)


def _domain(rules: Iterable[Refused]) -> Domain:
    text = joined(refused.rule for refused in rules)
    return Domain.parse(text) if text else EVERYWHERE


def discover(
    subject: Pair, dtypes: Sequence[str], *, declared: Domain | None = None, candidate: bool = True
) -> Discovered:
    """The rules of the original, and what the candidate refuses inside of them.

    Args:
        subject: The pair.
        dtypes: The dtypes in which the pair is judged.
        declared: The domain that the user has declared: then the original is not tried.
        candidate: Whether the candidate is tried.
    """
    whole = subject.traits.whole_model
    fields: dict[str, Any] = {"n_layer": SAMPLE.n_layer, "vocab_size": SAMPLE.vocab_size} if whole else {}
    original = Trials(subject, REFERENCE)
    causal = {} if "is_causal" in subject.options else {"full": False}
    rules: tuple[Refused, ...] = ()

    def usable(case: Case) -> bool:
        return case.dtype in dtypes and (declared is None or declared.allows(case)) and original.runs(case)

    anchor = first_that(lambda case: usable(case.but(**fields)), **causal)
    if anchor is None:
        return Discovered()  # it runs elsewhere; cases that it refuses are drawn again
    small = made_small(anchor.but(**fields), usable)
    if compiles_for_each_shape(original, small):
        return Discovered(few_sizes=few_sizes(original, small))  # its trials would take longer than the run
    if declared is None:
        rules = _of_original(original, dtypes, small)
    if not candidate:
        return Discovered(rules)
    domain = _domain(rules) if declared is None else declared
    trials = Trials(subject, CANDIDATE)

    def inside(case: Case) -> bool:
        return case.dtype in dtypes and domain.allows(case) and original.runs(case)

    anchor = _anchor_of_candidate(subject, small, inside, fields)
    if anchor is None:
        return Discovered(rules)
    if compiles_for_each_shape(trials, anchor):
        return Discovered(rules, few_sizes=few_sizes(original, anchor))
    anchor = made_small(anchor, lambda case: inside(case) and trials.runs(case))
    tried = rules_of_fields(trials, factors_of(subject, candidate=True), anchor, inside)
    refused = [rule for rule in tried if allowed_to_candidates(rule.fields[0], rule.rule)]
    asked = [case for case in _at_random(subject, dtypes, domain, _ROUNDS) if inside(case)] if refused else []
    return Discovered(rules, tuple(_not_too_narrow(trials, refused, asked)))


def _anchor_of_candidate(
    subject: Pair, small: Case, inside: Callable[[Case], bool], fields: Mapping[str, Any]
) -> Case | None:
    """A case that the original and the candidate run: the small one of the original, or a typical one."""
    once = Trials(subject, CANDIDATE, repeated=False)  # a broken candidate refuses all of them
    if inside(small) and once.runs(small):
        return small
    causal = small.is_causal
    typical = [case.but(is_causal=causal, **fields) for case in TYPICAL]
    return next((case for case in typical if inside(case) and once.runs(case)), None)


def _of_original(trials: Trials, dtypes: Sequence[str], anchor: Case) -> tuple[Refused, ...]:
    subject = trials.subject
    trials.accident = accidents_of(subject, anchor)
    factors = (Factor(name="dtype", look=dtypes, table=dtypes), *factors_of(subject))
    rules: list[Refused] = []
    for rule in rules_of_fields(trials, factors, anchor):
        rule = made_of_two(trials, factors, anchor, rule) or rule
        if rule.rule not in [known.rule for known in rules]:
            rules.append(rule)
    for number in range(_ROUNDS):
        drawn = _at_random(subject, dtypes, _domain(rules), number)
        outside = next((case for case in drawn if trials.refusal(case)), None)
        added = None if outside is None else rule_from(trials, factors, anchor, outside)
        if added is None or added.rule in [known.rule for known in rules]:
            break
        # a wider look at one field replaces the rule of a look that was too narrow
        rules = [known for known in rules if known.fields != added.fields] + [added]
    rules = [rule for rule in _without_twins(rules) if not _implied(rule, rules)]
    anywhere = _at_random(subject, dtypes, EVERYWHERE, _ROUNDS) if rules else []
    return tuple(_not_too_narrow(trials, rules, anywhere))


def _not_too_narrow(trials: Trials, rules: Sequence[Refused], drawn: Sequence[Case]) -> list[Refused]:
    """The rules that exclude none of these cases with which the side runs.

    A rule that is too narrow would keep cases from a run that must be judged; without a rule, a case that the original
    refuses is drawn again, and one that the candidate refuses is a difference.
    """
    domains = {rule: Domain.parse(rule.rule) for rule in rules}
    return [rule for rule, domain in domains.items() if not any(trials.runs(c) for c in drawn if not domain.allows(c))]


def _without_twins(rules: Sequence[Refused]) -> list[Refused]:
    """The rules without those of two fields that another rule has in the other order."""
    kept: dict[frozenset[str], Refused] = {}
    for rule in rules:
        kept.setdefault(frozenset(rule.fields), rule)
    return list(kept.values())


def _implied(rule: Refused, rules: Sequence[Refused]) -> bool:
    """Whether a rule of one field follows from one of two fields."""
    if len(rule.fields) > 1:
        return False
    (name,) = rule.fields
    alone = Domain.parse(rule.rule)
    for both in rules:
        tables = [table_of(field) for field in both.fields]
        if len(tables) == 1 or name not in both.fields or not all(tables):
            continue
        together = Domain.parse(both.rule)
        values = [dict(zip(both.fields, pair, strict=True)) for pair in product(*tables)]
        if all(alone.may_allow(v) for v in values if together.may_allow(v)):
            return True
    return False


def _at_random(subject: Pair, dtypes: Sequence[str], domain: Domain, number: int) -> list[Case]:
    """Small cases inside of a domain, always the same."""
    drawn: list[Case] = []
    limits: dict[str, Any] = {"dtypes": [d for d in dtypes for _ in range(_TIMES_FAST if d == _FAST else 1)]}
    if domain:
        limits["domain"] = domain
    if subject.traits.whole_model:
        limits |= {"n_layers": (1,), "max_head_size": 24}
    if subject.traits.function:
        causal = (True, False) if "is_causal" in subject.options else (True,)
        limits |= {"is_causal": causal, "features": subject.features}
    draw_cases(cases(_SMALL.but(**limits)), _AT_RANDOM, _SEED + number, drawn.append)
    return drawn
