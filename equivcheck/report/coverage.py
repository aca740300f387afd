"""Shares of combinations of classes that judged cases meet: the smallest of a report, and those that are asked for."""

from collections.abc import Mapping
from typing import Any

from equivcheck.errors import UsageError
from equivcheck.report.model import Combinations, Report

__all__ = ["STRENGTHS", "are_shares", "counts_by_check", "in_words", "share", "shares_of", "smallest"]

STRENGTHS = ("pairs", "triples")
_ALLOWED = f"{' and '.join(STRENGTHS)} with a number above 0 and up to 1, such as pairs=1.0,triples=0.5, are allowed"


def share(combinations: Combinations) -> float:
    """The share that is met; 1 if there is none to meet."""
    return combinations.met / combinations.of if combinations.of else 1.0


def smallest(report: Report, strength: str) -> tuple[str, Combinations] | None:
    """The check with the smallest share of the pairs or triples, and its numbers; None if no check counts them.

    Of several checks with this share it is the first by name.
    """
    counted = [(name, counts[strength]) for name, counts in report.coverage.items() if strength in counts]
    return min(counted, key=lambda one: (share(one[1]), one[0]), default=None)


def in_words(combinations: Combinations, where: str = "") -> str:
    """How many are met of how many, and how many cost too much; `where` stands behind the word `met`."""
    costly = combinations.not_met.get("cost", 0)
    return f"{combinations.met} of {combinations.of} met{where}" + (f" ({costly} cost too much)" if costly else "")


def counts_by_check(report: Report) -> list[tuple[str, ...]]:
    """The name of each check that counts what its cases meet, with its pairs and triples in words."""
    return [
        (name, *(in_words(counts[strength]) if strength in counts else "-" for strength in STRENGTHS))
        for name, counts in report.coverage.items()
    ]


def shares_of(text: str | None, option: str = "--min-coverage") -> dict[str, float] | None:
    """The share that is asked for, by strength, of a text such as `pairs=1.0,triples=0.5`; None if nothing was given.

    Args:
        text: The text.
        option: The option in messages.

    Raises:
        UsageError: A part is no strength with a number above 0 and up to 1, or a strength stands there twice.
    """
    if text is None:
        return None
    shares: dict[str, float] = {}
    for part in text.split(","):
        strength, _, number = (word.strip() for word in part.partition("="))
        try:
            least = float(number)
        except ValueError:
            least = 0.0
        if strength in shares or not are_shares({strength: least}):
            raise UsageError(f"{option} {text!r}: {_ALLOWED}")
        shares[strength] = least
    return shares


def are_shares(shares: Mapping[str, Any]) -> bool:
    """Whether these are strengths, each with a number above 0 and up to 1, and at least one."""
    return bool(shares) and all(
        strength in STRENGTHS and isinstance(least, int | float) and not isinstance(least, bool) and 0 < least <= 1
        for strength, least in shares.items()
    )
