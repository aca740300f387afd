"""Perturbed operations: each errs by its roundings, and by nothing where it is exact."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.numerics.error_model import ErrorModel
from equivcheck.numerics.monte_carlo import Rounding
from equivcheck.numerics.roundoff import ROUNDINGS, unit_roundoff

CPU = torch.device("cpu")


f64 = torch.float64


AMPLITUDE = math.sqrt(ROUNDINGS)


def rounding(dtype: torch.dtype = torch.float32, seed: int = 0, **options: Any) -> Rounding:
    return Rounding(ErrorModel(dtype, CPU, torch.Generator().manual_seed(seed), **options))


def test_one_rounding_has_the_spread_of_the_unit_roundoff() -> None:
    x = torch.ones(100_000, dtype=f64)
    with rounding():
        y = x * 1.0
    error = y - x
    assert float(error.std()) == pytest.approx(AMPLITUDE * 2.0**-24, rel=0.02)
    assert abs(float(error.mean())) < 0.02 * AMPLITUDE * 2.0**-24


def test_views_copies_and_choices_are_exact() -> None:
    x = torch.randn(6, 6, dtype=f64)
    with rounding():
        same = (
            x.t().contiguous(), x.clone(), x[1:3], x.masked_fill(x > 0, -1.0), torch.where(x > 0, x, 0.0),
            x.amax(-1), -x, x.abs(), torch.cat((x, x)), x.view(36), x.float(),
        )  # fmt: skip
    exact = (
        x.t().contiguous(), x.clone(), x[1:3], x.masked_fill(x > 0, -1.0), torch.where(x > 0, x, 0.0),
        x.amax(-1), -x, x.abs(), torch.cat((x, x)), x.view(36), x,
    )  # fmt: skip
    assert all(torch.equal(a, b) for a, b in zip(same, exact, strict=True))


def test_exact_zeros_stay_zero() -> None:
    x, zero = torch.randn(8, 8, dtype=f64), torch.zeros(8, 8, dtype=f64)
    for options in ({}, {"subnormal": True}, {"coherent": True}):
        with rounding(torch.float16, **options):
            results = x * zero, x @ zero, zero.sum(-1), zero + zero, zero.mean(-1)
            hidden = torch.softmax(torch.tensor([[0.0, -math.inf]], dtype=f64), -1)[0, 1]
        assert not any(bool(y.any()) for y in results)
        assert float(hidden) == 0.0


def test_infinities_stay_and_make_no_nan() -> None:
    x = torch.tensor([1.0, -math.inf, math.inf], dtype=f64)
    for coherent in (False, True):
        with rounding(coherent=coherent):
            y = x * 2
        assert torch.isinf(y).tolist() == [False, True, True]
        assert not bool(y.isnan().any())


def test_a_long_sum_may_be_off_by_more_than_a_short_one() -> None:
    def spread(n: int, dtype: torch.dtype) -> float:
        a = torch.randn(64, n, dtype=f64, generator=torch.Generator().manual_seed(0))
        with rounding(dtype):
            y = a @ a.t()
        return float(((y - a @ a.t()) / n).std())

    assert spread(1024, torch.float32) > 4 * spread(4, torch.float32) / math.sqrt(1024)
    # sums in float32 are not what limits bfloat16, but partial results may be kept in bfloat16 itself
    assert spread(1024, torch.bfloat16) > 100 * spread(1024, torch.float32)


def test_the_floor_of_float16_is_half_the_spacing_of_its_subnormals() -> None:
    x = torch.full((50_000,), 1e-9, dtype=f64)  # rounds to zero in float16
    with rounding(torch.float16, runs=50_000):  # in one run all are rounded alike
        y = x * 1.0
    assert float((y - x).std()) == pytest.approx(AMPLITUDE * 2.0**-25, rel=0.05)


def test_where_subnormals_matter_they_may_be_flushed_to_zero() -> None:
    smallest = torch.finfo(torch.float32).smallest_normal
    x = torch.full((50_000,), smallest / 4, dtype=f64)
    with rounding(torch.float32, subnormal=True):
        y = x * 1.0
    assert float((y - x).std()) > smallest
    with rounding(torch.float32):
        y = x * 1.0
    assert float((y - x).std()) < 1e-6 * smallest


def test_equal_values_get_equal_errors_where_values_repeat() -> None:
    x = torch.randn(5, dtype=f64).repeat(4)
    with rounding(coherent=True):
        y = x * 1.0
    assert torch.equal(y.view(4, 5), y[:5].expand(4, 5))
    assert bool((y != x).all())
    with rounding():
        y = x * 1.0
    assert not torch.equal(y.view(4, 5), y[:5].expand(4, 5))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_values_that_half_precision_cannot_tell_apart_err_alike(dtype: torch.dtype) -> None:
    near = 2.0**-6 * unit_roundoff(dtype)
    x = torch.tensor([1.1, 1.1 * (1 + near), 1.3], dtype=f64)
    with rounding(dtype):
        error = x * 1.0 - x
    assert float(error[0]) == pytest.approx(float(error[1]), rel=0.1)
    assert abs(float(error[0] - error[2])) > 1e-3 * unit_roundoff(dtype)
    smallest = torch.finfo(dtype).tiny * torch.finfo(dtype).eps  # the spacing of subnormals
    x = smallest * torch.tensor([0.3, 0.31, 4.5], dtype=f64)
    with rounding(dtype, subnormal=True):
        error = x * 1.0 - x
    error /= smallest
    assert float(error[0]) == pytest.approx(float(error[1]), rel=1e-2)
    assert float(error[0]) != pytest.approx(float(error[2]), rel=1e-2)


def test_coherent_errors_have_the_same_spread_and_no_sign() -> None:
    x = torch.randn(50_000, dtype=f64, generator=torch.Generator().manual_seed(0))
    with rounding(coherent=True):
        y = x * 1.0
    error = (y - x) / x.abs()
    assert float(error.std()) == pytest.approx(AMPLITUDE * 2.0**-24, rel=0.03)
    assert abs(float(error.mean())) < 0.03 * AMPLITUDE * 2.0**-24


def test_the_noise_comes_from_its_generator_alone() -> None:
    x = torch.randn(8, 8, dtype=f64)

    def once(seed: int, **options: Any) -> Tensor:
        torch.rand(1)  # whatever else is drawn meanwhile
        with rounding(seed=seed, **options):
            return torch.softmax(x @ x, -1) @ x

    for options in ({}, {"coherent": True}):
        assert torch.equal(once(1, **options), once(1, **options))
        assert not torch.equal(once(1, **options), once(2, **options))
    state = torch.get_rng_state()
    with rounding():
        x * x
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: F.gelu(x), lambda x: F.log_softmax(x, -1), lambda x: x.logsumexp(-1), lambda x: x.exp(),
        lambda x: x.mean(-1),
        lambda x: x.sum(), lambda x: F.layer_norm(x, (6,), torch.ones(6, dtype=f64), torch.ones(6, dtype=f64)),
        lambda x: F.layer_norm(x, (6,)), lambda x: x @ x[0], lambda x: x[0] @ x[1], lambda x: torch.var_mean(x, -1)[0],
        lambda x: F.cross_entropy(x, torch.arange(6)), lambda x: F.softmax(x, -1) @ x, lambda x: F.linear(x, x, x[0]),
    ],
)  # fmt: skip
def test_every_operation_errs_by_roundings_forward_and_backward(operation: Any) -> None:
    x = torch.randn(6, 6, dtype=f64, generator=torch.Generator().manual_seed(3)).requires_grad_()

    def both() -> tuple[Tensor, Tensor]:
        y = operation(x)
        (gradient,) = torch.autograd.grad(y, x, torch.linspace(1, 2, y.numel(), dtype=f64).view(y.shape))
        return y.detach(), gradient

    exact = both()
    with rounding():
        moved = both()
    assert not torch.equal(moved[0], exact[0])
    for a, b in zip(moved, exact, strict=True):
        assert float((a - b).norm() / b.norm().clamp_min(1e-9)) < 1e-4


@pytest.mark.parametrize("compute", [lambda x, w: F.conv1d(x, w), lambda x, w: (x * w).cumsum(-1)[..., -1:]])
def test_an_operation_of_many_steps_errs_by_its_terms(compute: Any) -> None:
    """A convolution and a running sum have no rule; where terms cancel, one rounding of the result would be no error at all."""
    x = torch.tensor([[[1.0, 1.0, 1.0, 1.0]]], dtype=f64)
    w = torch.tensor([[[1.0, -1.0, 1.0, -1.0 + 1e-9]]], dtype=f64)
    found = []
    for seed in range(30):
        with rounding(torch.float32, seed):
            found.append(compute(x, w).reshape(()) - 1e-9)
    assert 0.5 * AMPLITUDE * 2.0**-24 < float(torch.stack(found).std()) < 6 * AMPLITUDE * 2.0**-24


@pytest.mark.parametrize("compute", [torch.argmax, lambda x: x.cummax(-1)[1], lambda x: x.sort().indices])
def test_what_an_operation_chooses_is_chosen_of_exact_values(compute: Any) -> None:
    x = torch.ones(64, dtype=f64)
    with rounding(torch.bfloat16):
        found = compute(x)
    assert found.equal(compute(x))


def test_a_product_that_is_scaled_when_added_errs_by_the_scaled_value() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(1, 40, 40, dtype=f64, generator=g) for _ in range(2))
    zero = torch.zeros(1, 40, 40, dtype=f64)
    with rounding():
        small, large = (torch.baddbmm(zero, a, b, alpha=alpha) for alpha in (0.01, 100.0))
    errors = [float((x - torch.baddbmm(zero, a, b, alpha=s)).std()) for x, s in ((small, 0.01), (large, 100.0))]
    assert errors[1] / errors[0] == pytest.approx(1e4, rel=0.1)
