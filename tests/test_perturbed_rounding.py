"""The rounding of another host: sums move within rounding, the same each time; what every host computes alike stays."""

import pytest
import torch
from perturbed_rounding import PerturbedRounding


@pytest.fixture
def _rounding_of_another_host() -> None:
    """In place of the one in conftest.py: these tests say themselves which host rounds."""


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_sums_move_within_rounding_and_the_same_each_time(dtype: torch.dtype) -> None:
    a, b = torch.randn(2, 16, 32, generator=torch.Generator().manual_seed(0)).to(dtype)
    here = a @ b.T
    with PerturbedRounding(1):
        one, again = a @ b.T, a @ b.T
    with PerturbedRounding(2):
        other = a @ b.T
    assert torch.equal(one, again)
    assert not torch.equal(one, here)
    assert not torch.equal(one, other)
    # every operand is off by two roundoffs at most, and so is the result's own rounding
    assert bool(((one - here).abs() <= 4 * torch.finfo(dtype).eps * (a.abs() @ b.abs().T)).all())


def test_what_every_host_computes_alike_stays() -> None:
    t = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))
    whole = (t * 4).round()

    def alike() -> list[torch.Tensor]:
        return [t + t.T, t * t.T, t / 3, whole @ whole, whole.sum(0), torch.zeros(3).exp(), t.clone()]

    here = alike()
    with PerturbedRounding(1):
        there = alike()
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))
    with PerturbedRounding(1):
        assert len(torch.zeros(2, 5).softmax(-1).unique()) == 1, "equal scores have equal probabilities"
