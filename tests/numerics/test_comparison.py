"""The comparison is a pure function: what is looked at first, what fails and what does not, and in which words."""

import math
import re
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from equivcheck.errors import Mismatch
from equivcheck.numerics.comparison import Comparison, compare
from equivcheck.numerics.mismatch_words import describe
from equivcheck.numerics.spread import spread_of


def test_underflow_far_below_the_tensor_is_not_counted() -> None:
    truth = torch.tensor([[1.0, 1e-267]], dtype=torch.float64)
    moved = torch.tensor([[[1e-16, 1e-282]], [[-1e-16, -1e-282]]], dtype=torch.float64)
    got = truth + torch.tensor([[0.0, 4e-283]], dtype=torch.float64)
    assert compare("x", got, truth, moved, dtype=torch.float64, reference=None, certain=True).passes


f32, f64, f16 = torch.float32, torch.float64, torch.float16


SPREAD = 2.0**-24


MANY = 32


def noise(*shape: int, seed: int = 0, spread: float = SPREAD) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=f64) * spread


def held(candidate: Tensor | None, truth: Tensor, **options: Any) -> Comparison:
    chosen: dict[str, Any] = {
        "deviations": noise(MANY, *truth.shape, seed=1),
        "dtype": f32,
        "reference": None,
        "certain": True,
    }
    return compare("output", candidate, truth, **(chosen | options))


def truth_of(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(5), dtype=f64)


# --- what is looked at before values, and in which order -------------------------------------------------------------


def test_the_truth_itself_passes_with_ratio_zero() -> None:
    truth = truth_of(3, 4).float().double()
    found = held(truth.float(), truth)
    assert found.passes
    assert found.ratio == 0.0


def test_shape_comes_before_dtype_then_device_then_values() -> None:
    truth = truth_of(2, 3)
    assert "shape (3, 2)" in held(torch.full((3, 2), math.nan, dtype=f16), truth).problem
    assert "dtype torch.float16" in held(torch.full((2, 3), math.nan, dtype=f16, device="meta"), truth).problem
    assert "device meta" in held(torch.empty(2, 3, device="meta"), truth).problem
    assert "not finite" in held(torch.full((2, 3), math.nan), truth).problem


def test_a_problem_never_passes_and_has_no_finite_ratio() -> None:
    for candidate in (None, torch.zeros(1), torch.zeros(2, 3, dtype=f64), torch.full((2, 3), math.inf)):
        found = held(candidate, truth_of(2, 3))
        assert not found.passes
        assert found.ratio == math.inf


def test_a_gradient_of_none_is_one_of_zeros_and_nothing_else() -> None:
    zeros = torch.zeros(2, 3, dtype=f64)
    assert held(None, zeros, deviations=torch.zeros(MANY, 2, 3, dtype=f64)).passes
    assert "there is none" in held(None, truth_of(2, 3)).problem
    assert "there is none" in held(None, zeros).problem  # rounding moves it: it is not always zero


def test_nothing_to_compare_is_no_difference() -> None:
    assert held(torch.zeros(0, 3), torch.zeros(0, 3, dtype=f64)).passes


def test_a_scalar_is_compared_too() -> None:
    truth = torch.tensor(2.0, dtype=f64)
    deviations = noise(MANY, seed=1)
    assert held(torch.tensor(2.0), truth, deviations=deviations).passes
    assert not held(torch.tensor(2.001), truth, deviations=deviations).passes


# --- values that are not finite --------------------------------------------------------------------------------------


def test_nan_never_equals() -> None:
    truth = truth_of(2, 3)
    candidate = truth.float()
    candidate[1, 2] = math.nan
    found = held(candidate, truth)
    assert not found.passes
    assert found.index == (1, 2)
    assert math.isnan(found.candidate)
    assert "1 of 6 elements" in found.problem


def test_two_nans_do_not_count_as_agreement_but_as_unjudged() -> None:
    truth = truth_of(2, 3)
    truth[0, 0] = math.nan
    candidate = truth.float()
    found = held(candidate, truth)
    assert found.unjudged == 1
    candidate[1, 1] = math.nan
    assert not held(candidate, truth).passes


def test_where_the_reference_overflowed_the_candidate_may_too() -> None:
    truth = truth_of(2, 3)
    overflowed = truth.float()
    overflowed[0, 1] = math.inf
    candidate = truth.float()
    candidate[0, 1] = math.inf
    found = held(candidate, truth, reference=overflowed)
    assert found.passes
    assert found.unjudged == 1
    assert not held(candidate, truth, reference=truth.float()).passes


def test_where_the_reference_overflowed_finite_values_are_judged() -> None:
    truth = truth_of(2, 3)
    overflowed = torch.full((2, 3), math.inf)
    assert held(truth.float(), truth, reference=overflowed).passes
    assert not held(truth.float() * 1.01, truth, reference=overflowed).passes


def test_beyond_the_greatest_number_of_the_dtype_infinity_is_right() -> None:
    truth = torch.tensor([[1e5, 1.0]], dtype=f64)
    candidate = torch.tensor([[math.inf, 1.0]], dtype=f16)
    found = held(candidate, truth, dtype=f16, deviations=noise(MANY, 1, 2, seed=1, spread=2.0**-11))
    assert found.passes
    assert found.unjudged == 1


# --- zeros -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moved", [math.nan, math.inf, -math.inf])
def test_nothing_is_judged_where_rounding_may_overflow(moved: float) -> None:
    """As where it rounds a log-sum-exp of 10⁵ in bfloat16: an exponential of what is left may be infinite."""
    truth = truth_of(3, 4).float().double()
    deviations = noise(MANY, 3, 4, seed=1)
    deviations[7, 0, 2] = moved
    candidate = truth.float()
    candidate[0, 2] += 1.0
    found = held(candidate, truth, deviations=deviations)
    assert found.passes
    assert found.unjudged == 1
    candidate[0, 1] += 1.0
    assert not held(candidate, truth, deviations=deviations).passes


def test_exact_zeros_on_both_sides_are_equal() -> None:
    zeros = torch.zeros(4, 5, dtype=f64)
    found = held(zeros.float(), zeros, deviations=torch.zeros(MANY, 4, 5, dtype=f64))
    assert found.passes
    assert found.ratio == 0.0


def test_anything_but_a_zero_that_rounding_cannot_move_is_infinite() -> None:
    zeros = torch.zeros(4, 5, dtype=f64)
    candidate = zeros.float()
    candidate[2, 3] = 1e-30
    found = held(candidate, zeros, deviations=torch.zeros(MANY, 4, 5, dtype=f64))
    assert found.ratio == math.inf
    assert not found.passes
    assert found.index == (2, 3)


# --- the three levels ------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**20), st.sampled_from([(1, 1), (1, 7), (9, 1), (5, 16), (2, 3, 40)]))
def test_rounding_is_within_the_budget_of_rounding(seed: int, shape: tuple[int, ...]) -> None:
    truth = torch.zeros(shape, dtype=f64)
    error = noise(*shape, seed=2 * seed)
    deviations = noise(MANY, *shape, seed=2 * seed + 1)
    certain, quick = (
        compare("output", error, truth, deviations, dtype=f64, reference=None, certain=certain)
        for certain in (True, False)
    )
    assert certain.passes
    assert quick.ratio >= certain.ratio  # what is not certain accuses sooner, and is asked again


@given(st.integers(0, 2**20), st.floats(-250, 250))
def test_the_ratio_does_not_depend_on_the_scale(seed: int, exponent: float) -> None:
    scale = 2.0 ** round(exponent)
    error, deviations = noise(3, 8, seed=2 * seed), noise(MANY, 3, 8, seed=2 * seed + 1)
    zeros = torch.zeros(3, 8, dtype=f64)
    one = compare("g", error, zeros, deviations, dtype=f64, reference=None, certain=True)
    other = compare("g", error * scale, zeros, deviations * scale, dtype=f64, reference=None, certain=True)
    assert other.ratio == pytest.approx(one.ratio, rel=1e-9)


def test_one_wrong_row_among_many_is_seen() -> None:
    truth = torch.zeros(100_000, 8, dtype=f64)
    error, deviations = noise(100_000, 8), noise(MANY, 100_000, 8, seed=1)
    assert compare("y", error, truth, deviations, dtype=f64, reference=None, certain=True).passes
    error[54_321] = 16 * SPREAD
    found = compare("y", error, truth, deviations, dtype=f64, reference=None, certain=True)
    assert not found.passes
    assert found.index[0] == 54_321
    assert found.rows_over == 1


def test_one_element_that_is_off_by_a_rounding_or_two_is_not_accused() -> None:
    truth = torch.zeros(100_000, 8, dtype=f64)
    error = noise(100_000, 8)
    error[54_321, 3] = 4 * SPREAD
    assert compare("y", error, truth, noise(MANY, 100_000, 8, seed=1), dtype=f64, reference=None, certain=True).passes


def test_one_element_that_is_far_off_is_seen() -> None:
    truth = torch.zeros(1000, 8, dtype=f64)
    error = noise(1000, 8)
    error[321, 3] = 100 * SPREAD
    found = compare("y", error, truth, noise(MANY, 1000, 8, seed=1), dtype=f64, reference=None, certain=True)
    assert not found.passes
    assert found.index == (321, 3)
    assert found.over == 1


def test_all_elements_a_little_too_far_off_are_seen_by_the_whole() -> None:
    truth = torch.zeros(1000, 8, dtype=f64)
    found = compare(
        "y", 2 * noise(1000, 8), truth, noise(MANY, 1000, 8, seed=1), dtype=f64, reference=None, certain=True
    )
    assert not found.passes
    assert found.level == "tensor"
    assert found.over == found.rows_over == 0


def test_an_original_beyond_its_budget_allows_twice_its_error() -> None:
    truth = torch.zeros(10, 8, dtype=f64)
    own = 50 * noise(10, 8)
    deviations = noise(MANY, 10, 8, seed=1)

    def ratio(candidate: Tensor) -> float:
        return compare("y", candidate, truth, deviations, dtype=f64, reference=own, certain=True).ratio

    assert ratio(own) == pytest.approx(0.5)
    assert ratio(1.9 * own) < 1 < ratio(2.1 * own)


def test_a_row_of_one_element_knows_nothing_that_the_element_does_not() -> None:
    alone, beside = spread_of(noise(2, 9, 1)), spread_of(noise(2, 9, 5))
    assert alone.dof_of_elements == 2
    assert beside.dof_of_elements > 2


def test_a_known_spread_gives_the_comparison_that_the_deviations_give() -> None:
    truth, deviations = truth_of(3, 5), noise(4, 3, 5, seed=1)
    off = truth + noise(3, 5, seed=2)
    assert held(off, truth, deviations=deviations, spread=spread_of(deviations)) == held(
        off, truth, deviations=deviations
    )


def test_few_samples_accuse_sooner_than_many() -> None:
    error, truth = 3 * noise(20, 8), torch.zeros(20, 8, dtype=f64)
    few = compare("y", error, truth, noise(4, 20, 8, seed=1), dtype=f64, reference=None, certain=False)
    same = compare("y", error, truth, noise(4, 20, 8, seed=1), dtype=f64, reference=None, certain=True)
    assert same.ratio < few.ratio


# --- the words -------------------------------------------------------------------------------------------------------


def test_a_mismatch_of_values_says_how_many_how_big_and_where() -> None:
    truth = truth_of(3, 4)
    candidate = truth.float()
    candidate[1, 2] += 0.5
    found = held(candidate, truth)
    of = {"element": "error at (1, 2)", "row": "norm of the error in row (1,)", "tensor": "norm of the whole error"}
    assert describe(found, dtype="float32") == (
        f"output (3, 4) is {found.ratio:.3g} times further from the oracle than rounding in float32 explains\n"
        f"  {of[found.level]}: 0.5, allowed {found.allowed:.3g}; "
        f"greatest at (1, 2): candidate {float(candidate[1, 2]):.9g}, oracle {float(truth[1, 2]):.9g}\n"
        "  over budget: 1 of 12 elements, 1 of 3 rows; the original itself is at 0 of the budget"
    )


@pytest.mark.parametrize("level", ["element", "row", "tensor"])
@pytest.mark.parametrize("coarse", [False, True], ids=["original-within", "original-beyond"])
def test_the_ratio_of_a_message_is_its_error_over_what_is_allowed(level: str, coarse: bool) -> None:
    truth = truth_of(16, 16)
    deviations = noise(MANY, 16, 16, seed=3, spread=1e-6)
    off = torch.full((16, 16), 1e-3 if level == "tensor" else 0.0)
    if level == "element":
        off[3, 4] = 1e-2
    elif level == "row":
        off[3] = 1e-2
    reference = (truth + deviations[0] * 40).float() if coarse else truth.float()
    found = compare(
        "output", (truth + off).float(), truth, deviations, dtype=torch.float32, reference=reference, certain=True
    )
    assert not found.passes
    message = describe(found, dtype="float32")
    ratio, error, allowed = (
        float(re.search(pattern, message)[1])  # type: ignore[index]  # a message without it fails here
        for pattern in (
            r"is (\S+) times further",
            r"(?:error|row \S+|error at \(.*\)): (\S+), allowed",
            r"allowed ([^\s,;]+)",
        )
    )
    assert error / allowed == pytest.approx(ratio, rel=0.02)
    assert ("twice what the original itself errs by" in message) == coarse


def test_a_mismatch_before_values_is_one_line() -> None:
    truth = truth_of(2, 3)
    assert describe(held(torch.zeros(4), truth), dtype="float32") == "output: shape (4,) instead of (2, 3)"
    assert describe(held(None, truth), dtype="float32") == "output: there is none, and the original has one"
    candidate = truth.float()
    candidate[0, 1] = math.inf
    assert describe(held(candidate, truth), dtype="float32") == (
        "output: 1 of 6 elements are not finite, and the original's are: "
        f"inf where the oracle has {float(truth[0, 1]):g} at (0, 1)"
    )


def test_a_mismatch_of_a_scalar_has_no_place() -> None:
    found = held(torch.tensor(3.0), torch.tensor(2.0, dtype=f64), deviations=noise(MANY, seed=1))
    message = describe(found, dtype="float32")
    assert message == (
        f"output () is {found.ratio:.3g} times further from the oracle than rounding in float32 explains\n"
        f"  error: 1, allowed {found.allowed:.3g}; greatest: candidate 3, oracle 2\n"
        "  over budget: 1 of 1 elements, 1 of 1 rows; the original itself is at 0 of the budget"
    )


def test_a_mismatch_is_an_assertion_that_carries_its_ratio_and_place() -> None:
    error = Mismatch("message", ratio=3.0, where="output")
    assert isinstance(error, AssertionError)
    assert (str(error), error.ratio, error.where) == ("message", 3.0, "output")
    assert Mismatch("message").ratio == math.inf


def test_a_candidate_must_be_on_the_device_that_is_asked_for() -> None:
    truth, cpu = torch.zeros(2, 3, dtype=f64), torch.zeros(2, 3)
    assert held(cpu, truth, device=torch.device("cpu")).passes
    found = held(cpu, truth, device=torch.device("meta"))
    assert found.problem == "device cpu instead of meta"
