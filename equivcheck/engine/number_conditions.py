"""The condition on a number under which cases fail: from the values that were tried, and the value to try next."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["Condition", "condition_on", "next_value"]

Number = int | float
_MODULI = (2, 3, 4, 5, 6, 7, 8, 12, 16, 32, 64, 128)
_LEAST: Mapping[type, Number] = {int: 1, float: 0.0}  # a size, and a rate
_FEW = 3  # values that are listed
_ALWAYS, _ONE, _BOUND, _REMAINDER, _RANGE = "always", "one", "bound", "remainder", "range"


@dataclass(frozen=True)
class Condition:
    """A condition on one number.

    Attributes:
        text: It in the grammar of domains; empty if every number meets it.
        holds: Whether a number meets it.
        family: Conditions of a family are equally likely.
    """

    text: str
    holds: Callable[[Number], bool]
    family: str


def condition_on(name: str, tried: Mapping[Number, bool]) -> str | None:
    """The simplest condition that is true of every value that fails, and of no other.

    Args:
        name: The name of the number.
        tried: Value -> whether it fails; one of them at least does.

    Returns:
        An expression in the grammar of domains; empty if every value fails, and None if no simple one fits.
    """
    simplest = next(_fitting(name, tried), None)
    if simplest is not None:
        return simplest.text
    failing, passing = _of(tried)
    if all(not failing[0] < value < failing[-1] for value in passing):
        return f"{failing[0]} <= {name} <= {failing[-1]}"
    if len(failing) <= _FEW and len(passing) > len(failing):
        return f"{name} in ({', '.join(map(str, failing))})"
    if len(passing) <= _FEW and len(failing) > len(passing):
        return f"{name} not in ({', '.join(map(str, passing))})" if len(passing) > 1 else f"{name} != {passing[0]}"
    return None


def next_value(tried: Mapping[Number, bool], values: Sequence[int]) -> int | None:
    """The value whose outcome leaves fewest of the conditions that still fit; None if they agree on all values.

    Edges are halved so, and a bound and a remainder are kept apart.

    Args:
        tried: Value -> whether it fails.
        values: The values that can be tried, ascending.
    """
    failing, passing = _of(tried)
    if not failing or not passing:
        return None
    open_values = _telling(tried, values)
    fitting = list(_fitting("", tried))
    counts = Counter(one.family for one in fitting)
    best, most = None, 0.0
    for value in open_values:
        fails = sum(1 / counts[one.family] for one in fitting if one.holds(value))
        passes = sum(1 / counts[one.family] for one in fitting) - fails
        if min(fails, passes) > most:
            best, most = value, min(fails, passes)
    return best


def _of(tried: Mapping[Number, bool]) -> tuple[list[Number], list[Number]]:
    return sorted(v for v in tried if tried[v]), sorted(v for v in tried if not tried[v])


def _fitting(name: str, tried: Mapping[Number, bool]) -> Iterator[Condition]:
    """The conditions that are true of the values that fail, and of no other, the simplest first."""
    for condition in _possible(name, *_of(tried)):
        if all(condition.holds(value) == fails for value, fails in tried.items()):
            yield condition


def _possible(name: str, failing: Sequence[Number], passing: Sequence[Number]) -> Iterator[Condition]:
    least, most = failing[0], failing[-1]
    yield Condition("", lambda value: True, _ALWAYS)
    if len(failing) == 1 and any(value < least for value in passing) and any(value > least for value in passing):
        yield Condition(f"{name} == {least}", lambda value: value == least, _ONE)
    if passing == [0]:
        yield Condition(f"{name} > 0", lambda value: value > 0, _ALWAYS)
    below = [value for value in passing if value < least]
    above = [value for value in passing if value > most]
    if below and not above:
        for edge in _between(below[-1], least, reverse=True):
            yield Condition(f"{name} >= {edge}", lambda value, edge=edge: value >= edge, _BOUND)  # type: ignore[misc]
    if above and not below:
        for edge in _between(above[0], most):
            text = f"{name} == {edge:g}" if edge == _LEAST[type(edge)] else f"{name} <= {edge:g}"
            yield Condition(text, lambda value, edge=edge: value <= edge, _BOUND)  # type: ignore[misc]
    if not all(isinstance(value, int) for value in (*failing, *passing)):
        return
    for by in _MODULI:
        rest = int(least) % by
        yield Condition(f"{name} % {by} != 0", lambda value, by=by: value % by != 0, _REMAINDER)  # type: ignore[misc]
        yield Condition(
            f"{name} % {by} == {rest}",
            lambda value, by=by, rest=rest: value % by == rest,  # type: ignore[misc]
            _REMAINDER,
        )
    if below and above:
        lows = [(low, most) for low in _between(below[-1], least, reverse=True)]
        highs = [(least, high) for high in _between(above[0], most)]
        for low, high in dict.fromkeys((*lows, *highs)):
            if low < high:
                text = f"{low} <= {name} <= {high}"
                yield Condition(text, lambda value, low=low, high=high: low <= value <= high, _RANGE)  # type: ignore[misc]


def _between(passing: Number, failing: Number, *, reverse: bool = False) -> Iterable[Number]:
    """The edges between a value that passes and one that fails, that of the failing one first."""
    if not (isinstance(passing, int) and isinstance(failing, int)):
        return (failing,)
    return range(failing, passing, -1 if reverse else 1)


def _middles(tried: Mapping[Number, bool]) -> Iterator[int]:
    """The middle of each gap between a value that fails and its neighbour that passes."""
    in_order = sorted(tried)
    for low, high in pairwise(in_order):
        if tried[low] != tried[high] and high - low > 1:
            yield int((low + high) // 2)


def _telling(tried: Mapping[Number, bool], values: Sequence[int]) -> list[int]:
    """Values that are not tried: small ones, those beside powers of two, multiples of small ones, and middles of gaps."""
    beside = {size + step for size in (2**k for k in range(3, 12)) for step in (-1, 0, 1)}
    multiples = {by * times for by in _MODULI for times in (1, 2, 3)}
    wanted = {*range(1, 18), *beside, *multiples, *_middles(tried)}
    return [value for value in values if value in wanted and value not in tried]
