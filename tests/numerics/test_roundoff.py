"""The unit roundoffs of dtypes, sums and factors."""

import pytest
import torch

from equivcheck.numerics.dtypes import DTYPES
from equivcheck.numerics.roundoff import accumulation_roundoff, product_roundoff, unit_roundoff

CPU = torch.device("cpu")


def test_unit_roundoffs_are_those_of_ieee_754_and_bfloat16() -> None:
    assert [unit_roundoff(getattr(torch, d)) for d in DTYPES] == [2.0**-24, 2.0**-53, 2.0**-8, 2.0**-11]


def test_half_precision_sums_in_float32() -> None:
    sums = [accumulation_roundoff(getattr(torch, d), CPU) for d in DTYPES]
    assert sums == [2.0**-24, 2.0**-53, 2.0**-24, 2.0**-24]


@pytest.mark.parametrize(
    ("precision", "allowed", "factor"),
    [("highest", False, 0.0), ("high", False, 2.0**-11), ("medium", False, 2.0**-9), ("highest", True, 2.0**-11)],
)
def test_factors_are_rounded_to_tf32_where_the_process_allows_it(
    monkeypatch: pytest.MonkeyPatch, precision: str, allowed: bool, factor: float
) -> None:
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: precision)
    monkeypatch.setattr(type(torch.backends.cuda.matmul), "__getattr__", lambda self, name: allowed)
    assert product_roundoff(torch.float32, torch.device("cuda")) == factor
    assert product_roundoff(torch.float32, CPU) == 0.0
    assert product_roundoff(torch.float64, torch.device("cuda")) == 0.0
