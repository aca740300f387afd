"""The number of a family of faults that fits results best."""

import math
from collections.abc import Callable, Iterator, Mapping

from torch import Tensor

__all__ = ["best", "factor_of", "round_numbers"]

_GRID = 33
_STEPS = 36
_SECTION = (math.sqrt(5) - 1) / 2


def best(error: Callable[[float], float], smallest: float, largest: float) -> float:
    """The number between two positive bounds with the smallest error: a grid of logarithms, then sections of it."""
    low, high = math.log(smallest), math.log(largest)
    step = (high - low) / (_GRID - 1)
    errors = [_finite(error(math.exp(low + step * at))) for at in range(_GRID)]
    at = min(range(_GRID), key=errors.__getitem__)
    a, b = low + step * (at - 1), low + step * (at + 1)
    inner = [b - _SECTION * (b - a), a + _SECTION * (b - a)]
    values = [_finite(error(math.exp(x))) for x in inner]
    for _ in range(_STEPS):
        if values[0] < values[1]:
            b, inner[1], values[1] = inner[1], inner[0], values[0]
            inner[0] = b - _SECTION * (b - a)
            values[0] = _finite(error(math.exp(inner[0])))
        else:
            a, inner[0], values[0] = inner[0], inner[1], values[1]
            inner[1] = a + _SECTION * (b - a)
            values[1] = _finite(error(math.exp(inner[1])))
    return math.exp((a + b) / 2)


def _finite(error: float) -> float:
    return error if math.isfinite(error) else math.inf


def factor_of(
    results: Mapping[str, Tensor | None], at_zero: Mapping[str, Tensor], at_one: Mapping[str, Tensor]
) -> float | None:
    """The factor f for which `at_zero + f * (at_one - at_zero)` is nearest to the results; None if it changes nothing."""
    product = square = 0.0
    for name, one in at_one.items():
        result = results.get(name)
        if result is None or name not in at_zero:
            continue
        zero = at_zero[name]
        along = one - zero
        product += float((along * (result.to(one) - zero)).sum())
        square += float((along * along).sum())
    if not math.isfinite(product) or not square > 0:
        return None
    return product / square


def round_numbers(value: float) -> Iterator[float]:
    """The number rounded to ever more digits, the number itself last."""
    if abs(value) < 1e-3:
        yield 0.0
    for digits in (1, 2, 3, 4):
        yield float(f"{value:.{digits}g}")
    yield value
