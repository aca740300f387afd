"""What a call leaves behind for calls of another length is a difference of values; half-precision optimizers say nothing."""

from typing import Any

import pytest
from torch import Tensor

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS
from equivcheck.errors import Mismatch
from equivcheck.pairs.resolve import resolve

BY_NAME = {check.name: check for check in CHECKS}


class Stretched(CausalSelfAttention):
    """Inputs are scaled by the length, so that no prefix has the rows of the whole."""

    longest = 0

    def factor(self, length: int) -> float:
        return 1 + length / 16

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.factor(x.size(1)))


class OfTheLongest(Stretched):
    """The factor of the longest sequence so far stays."""

    def factor(self, length: int) -> float:
        self.longest = max(self.longest, length)
        return super().factor(self.longest)


class OfTheFirst(Stretched):
    """The factor of the first sequence stays."""

    def factor(self, length: int) -> float:
        self.longest = self.longest or length
        return super().factor(self.longest)


def run(check: str, original: Any, candidate: Any, case: Case) -> None:
    BY_NAME[check].run(resolve(original, candidate, kind="module", device="cpu"), case)


@pytest.mark.parametrize("candidate", [OfTheLongest, OfTheFirst])
def test_a_factor_that_stays_from_another_length_is_seen(candidate: Any) -> None:
    case = Case(batch_size=2, seq_len=9, n_head=2, head_size=4, block_size=10)
    run("purity", Stretched, Stretched, case)
    with pytest.raises(Mismatch, match="the first 5 positions after a call with 9"):
        run("purity", Stretched, candidate, case)


@pytest.mark.parametrize("seed", range(4))
def test_a_step_in_half_precision_divides_by_nothing(seed: int) -> None:
    """40,000 weights: among as many normal draws some have a square of 0 in half precision."""
    case = Case(batch_size=1, seq_len=1, n_head=4, head_size=29, block_size=1, dtype="float16", seed=seed)
    run("checkpoint", CausalSelfAttention, FlashCausalSelfAttention, case)


class Exchanged(CausalSelfAttention):
    """Keys and queries are registered in another order: the states of an optimizer go astray."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        key, query = self.key, self.query
        del self.key, self.query
        self.query, self.key = query, key


def test_parameters_in_another_order_are_seen_in_half_precision() -> None:
    case = Case(batch_size=1, seq_len=1, n_head=2, head_size=8, block_size=1, dtype="float16")
    with pytest.raises(Mismatch, match="order"):
        run("checkpoint", CausalSelfAttention, Exchanged, case)
