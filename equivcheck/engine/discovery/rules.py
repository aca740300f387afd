"""The simplest condition on one field that is true of every value with which a side runs, and of no other."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

__all__ = ["allowed_to_candidates", "condition", "product_bound", "rounded"]

_FEW = 3  # values that are listed rather than put into two conditions
_LISTED = 2  # values whose exception is simpler than two conditions
_LEAST_BLOCK = 8
_OF_SIZES = re.compile(r"\w+ (?:% (?P<block>\d+) == 0|>= (?P<bound>\d+))")
_SIZES = ("seq_len", "kv_len", "n_head", "batch_size", "block_size")
_Condition = tuple[str, Callable[[int], bool]]


def condition(name: str, runs: Mapping[Any, bool]) -> str:
    """The simplest condition on a field.

    Args:
        name: The field's name.
        runs: Value -> whether the side runs with it; it runs with one of them at least.

    Returns:
        An expression in the grammar of domains; empty if the side runs with every value.
    """
    passes, refused = [v for v in runs if runs[v]], [v for v in runs if not runs[v]]
    if not refused:
        return ""
    if isinstance(passes[0], bool):
        return name if passes[0] else f"not {name}"
    if isinstance(passes[0], str):
        return _of_words(name, passes, refused)
    return _of_sizes(name, sorted(passes), sorted(refused))


def _of_words(name: str, passes: Sequence[str], refused: Sequence[str]) -> str:
    if len(refused) < len(passes):
        return _listed(name, refused, without=True)
    return _listed(name, passes)


def _listed(name: str, values: Sequence[Any], *, without: bool = False) -> str:
    if len(values) == 1:
        return f"{name} {'!=' if without else '=='} {values[0]!r}"
    return f"{name} {'not in' if without else 'in'} ({', '.join(map(repr, values))})"


def _of_sizes(name: str, passes: Sequence[int], refused: Sequence[int]) -> str:
    def fits(*conditions: _Condition) -> bool:
        return not any(all(holds(value) for _, holds in conditions) for value in refused)

    possible = list(_conditions(name, passes))
    if len(passes) > 1:
        for one in possible:
            if fits(one):
                return one[0]
    if len(passes) <= _FEW:
        return _listed(name, passes)
    if len(refused) <= _LISTED:
        return _listed(name, refused, without=True)
    for pair in combinations(possible, 2):
        if fits(*pair):
            return " and ".join(text for text, _ in pair)
    return _listed(name, passes) if len(passes) <= len(refused) else _listed(name, refused, without=True)


def _conditions(name: str, passes: Sequence[int]) -> Iterator[_Condition]:
    """Conditions that are true of every value that runs, the simplest first."""
    least, most, step = passes[0], passes[-1], math.gcd(*passes)
    for block in (b for b in range(2, step + 1) if step % b == 0):
        yield f"{name} % {block} == 0", lambda value, block=block: value % block == 0  # type: ignore[misc]
    if least > 1:
        yield f"{name} >= {least}", lambda value: value >= least
    yield f"{name} <= {most}", lambda value: value <= most


def allowed_to_candidates(name: str, rule: str) -> bool:
    """Whether a candidate may refuse what is outside of such a rule, as kernels do; all else is a difference.

    Args:
        name: The field's name.
        rule: A rule of one field.
    """
    if name not in _SIZES or rule == "kv_len == seq_len":
        return True
    form = _OF_SIZES.fullmatch(rule)
    number = int(form["block"] or form["bound"]) if form else 0
    return number >= _LEAST_BLOCK and number & (number - 1) == 0


def product_bound(runs: Mapping[tuple[int, int], bool]) -> int | None:
    """The greatest product of two sizes with which a side runs, if a bound on it explains every trial; else None."""
    passes = [a * b for (a, b), ran in runs.items() if ran]
    refused = [a * b for (a, b), ran in runs.items() if not ran]
    if not passes or not refused or max(passes) >= min(refused):
        return None
    return rounded(max(passes), min(refused))


def rounded(least: int, below: int) -> int:
    """The roundest number from `least` up to, and without, `below`: the one that most twos divide."""
    return max(range(least, below), key=lambda number: (number & -number, -number))
