"""The domain of a run: the one that is declared, or the one that trials of both sides show."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from equivcheck.cases.domain import Domain
from equivcheck.engine.discovery.discovered import Discovered, discover, joined
from equivcheck.engine.discovery.in_words import outside_in_words, rule_in_words
from equivcheck.pairs.pair import Pair

__all__ = ["Narrowed", "Tried", "narrowed"]

_known: dict[Hashable, Discovered] = {}
_MOST_KNOWN = 64  # a suite asks for each check in each dtype

Tried = Literal["both", "original", "none"]
"""The sides that are tried: fewer after one has ended the process of its trials."""


@dataclass(frozen=True)
class Narrowed:
    """A pair with its domain, and what is said of it.

    Attributes:
        subject: The pair; its cases are drawn from its domain.
        domain: The domain for the report: where a side compiles for each shape, cases are drawn from a part of it.
        refused: Rule -> what the candidate refuses, in words.
        notes: Facts about the original for the report.
    """

    subject: Pair
    domain: str
    refused: dict[str, str]
    notes: tuple[str, ...]


def narrowed(subject: Pair, dtypes: Sequence[str], *, tried: Tried = "both", given: Hashable = None) -> Narrowed:
    """The pair with a domain that has no case which the original refuses, or which the candidate alone may refuse.

    Args:
        subject: The pair, with the domain that the user declared; then its original is not tried.
        dtypes: The dtypes in which it is judged.
        tried: The sides that are tried.
        given: The pair as the user gave it: the same one is not tried again in this process; None to try it anyway.
    """
    refused = {words: words for words in subject.refused_features}
    if tried == "none" or not dtypes:
        return Narrowed(subject, subject.domain.text, refused, ())
    declared = subject.domain if subject.domain else None
    key = (given, tuple(dtypes), subject.domain.text, tried)
    discovered = None if given is None else _known.get(key)
    if discovered is None:
        discovered = discover(subject, dtypes, declared=declared, candidate=tried == "both")
    if given is not None:
        _known[key] = discovered
        while len(_known) > _MOST_KNOWN:
            _known.pop(next(iter(_known)))
    rules = [rule.rule for rule in discovered.original]
    notes = [f"the original runs for {', '.join(map(rule_in_words, rules))}"] if rules else []
    for rule in discovered.candidate:
        refused[rule.rule] = f"the candidate refuses {outside_in_words(rule.rule)}: {rule.reason}"
        rules.append(rule.rule)
    if rules:
        domain = Domain.parse(joined(rules)).on(subject.device.type)
        subject = replace(subject, domain=subject.domain & domain if declared else domain)
    text = subject.domain.text
    if discovered.few_sizes:
        notes.append(f"a side compiles for each shape: sizes are drawn from few, {discovered.few_sizes}")
        subject = replace(subject, domain=subject.domain & Domain.parse(discovered.few_sizes).on(subject.device.type))
    return Narrowed(subject, text, refused, tuple(notes))
