"""From values that fail and that pass to a condition on a number, and from there to the value to try next."""

from collections.abc import Callable

import pytest

from equivcheck.engine.number_conditions import condition_on, next_value

Fails = Callable[[int], bool]


def learned(fails: Fails, values: range, *first: int, most: int = 16) -> tuple[str | None, dict[int, bool]]:
    """The condition after up to so many values, of which some are given."""
    tried: dict[int | float, bool] = {value: fails(value) for value in first}
    while len(tried) < most and (value := next_value(tried, values)) is not None:
        tried[value] = fails(value)
    return condition_on("n", tried), {int(value): failed for value, failed in tried.items()}


@pytest.mark.parametrize(
    ("fails", "first", "text"),
    [
        (lambda n: n >= 257, (1, 700), "n >= 257"),
        (lambda n: n <= 100, (1, 700), "n <= 100"),
        (lambda n: n <= 1, (1, 700), "n == 1"),
        (lambda n: n == 12, (12, 1, 40), "n == 12"),
        (lambda n: n % 8 != 0, (1, 256), "n % 8 != 0"),
        (lambda n: n % 64 != 0, (1, 128), "n % 64 != 0"),
        (lambda n: n % 2 == 0, (2, 1), "n % 2 == 0"),
        (lambda n: n % 16 == 1, (1, 128), "n % 16 == 1"),
        (lambda n: n % 12 == 0, (12, 1, 40), "n % 12 == 0"),
        (lambda n: 65 <= n <= 100, (65, 1, 64, 256), "65 <= n <= 100"),
        (lambda n: True, (1, 700, 128), ""),
    ],
)
def test_the_condition_of_a_fault_is_learned_from_few_values(fails: Fails, first: tuple[int, ...], text: str) -> None:
    condition, tried = learned(fails, range(1, 701), *first)
    assert condition == text
    assert len(tried) <= 16


def test_an_edge_between_far_values_is_halved() -> None:
    _, tried = learned(lambda n: n >= 300, range(1, 1025), 1, 1024)
    assert {299, 300} <= tried.keys()
    assert len(tried) <= 14


def test_values_in_no_order_are_listed_and_many_of_them_are_not() -> None:
    few = dict.fromkeys((1, 2, 3, 5, 9, 20), False) | dict.fromkeys((4, 7), True)
    assert condition_on("n", few) == "n in (4, 7)"
    many = {value: value in (1, 2, 5, 6, 11, 14, 15) for value in range(1, 17)}
    assert condition_on("n", many) is None


def test_rates_are_compared_with_zero() -> None:
    assert condition_on("p", {0.0: False, 0.1: True, 0.5: True}) == "p > 0"
    assert condition_on("p", {0.0: True, 0.1: False, 0.5: False}) == "p == 0"


def test_nothing_is_asked_where_all_values_fail() -> None:
    assert next_value({1: True, 700: True}, range(1, 701)) is None
