"""How far errors of a known spread may lie out: the quantiles of Student's t against scipy's, and the bound of a norm."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from equivcheck.numerics.quantiles import norm_quantile, student_quantile


@pytest.mark.parametrize("dof", [1, 2, 3, 4, 7.3, 8, 24, 32, 36, 100.5, 1e3, 99_999, 1e5, 1e7])
@pytest.mark.parametrize("tail", [0.9, 0.05, 1e-3, 1e-6, 1e-9, 1e-30])
def test_students_quantile_is_that_of_scipy(dof: float, tail: float) -> None:
    assert student_quantile(tail, dof) == pytest.approx(stats.t.isf(tail / 2, dof), rel=2e-9)


def test_students_quantile_is_the_normal_one_where_the_spread_is_known() -> None:
    assert student_quantile(0.05, math.inf) == pytest.approx(1.959964, rel=1e-5)
    assert student_quantile(0.0027, math.inf) == pytest.approx(3.0, rel=1e-3)
    assert student_quantile(1e-9, 1e7) == pytest.approx(student_quantile(1e-9, math.inf), rel=1e-4)


@given(st.floats(1e-14, 0.5), st.floats(1.0, 1e4))
def test_students_quantile_is_wider_and_grows_as_the_tail_shrinks(tail: float, dof: float) -> None:
    assert student_quantile(tail, dof) >= student_quantile(tail, math.inf)
    assert student_quantile(tail / 2, dof) > student_quantile(tail, dof)


def test_a_tail_below_the_smallest_number_is_still_finite() -> None:
    assert math.isfinite(student_quantile(0.0, 4))
    assert math.isfinite(student_quantile(0.0, math.inf))


def chi_square_tail(x: float, dof: int) -> float:
    """P(X > x) for an even number of degrees of freedom: a Poisson sum."""
    return math.exp(-x / 2) * sum((x / 2) ** k / math.factorial(k) for k in range(dof // 2))


@pytest.mark.parametrize("dof", [2, 4, 10, 40, 100])
@pytest.mark.parametrize("tail", [1e-3, 1e-6, 1e-9])
def test_the_bound_of_a_norm_is_an_upper_bound_of_the_chi_distribution(dof: int, tail: float) -> None:
    bound = norm_quantile(tail, dof, math.inf)
    assert chi_square_tail(bound * bound * dof, dof) <= tail


@pytest.mark.parametrize("tail", [1e-3, 1e-6, 1e-9])
def test_the_bound_of_a_norm_is_near_the_normal_quantile_for_one_error(
    tail: float,
) -> None:
    exact = student_quantile(tail, math.inf)
    assert exact <= norm_quantile(tail, 1, math.inf) < 1.5 * exact


def test_the_bound_of_a_long_norm_is_near_one_and_few_samples_widen_it() -> None:
    assert 1 < norm_quantile(1e-9, 1e8, math.inf) < 1.01
    assert norm_quantile(1e-9, 10, 4) > norm_quantile(1e-9, 10, math.inf)
