"""The factor of dropout in float64: float32's is right, as kernels have it; another one is not."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS
from equivcheck.checks.base.check import CaseResult
from equivcheck.errors import Mismatch
from equivcheck.pairs.resolve import resolve

BY_NAME = {check.name: check for check in CHECKS}
CASE = Case(batch_size=2, seq_len=6, n_head=2, head_size=8, block_size=8, dtype="float64", training=True)


class Thinned(nn.Dropout):
    """A dropout whose factor is a float32 number, times another."""

    times = 1.0

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        keep = torch.rand(x.shape, device=x.device) >= self.p
        return x * (keep.float() / (1 - self.p) * self.times).to(x.dtype)


class Nearly(Thinned):
    times = 1 + 2.0**-19


class Off(Thinned):
    times = 1.01


def with_dropouts(attention: bool, residual: bool, thinned: type[nn.Dropout]) -> Any:
    class Candidate(CausalSelfAttention):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            if attention:
                self.attn_drop = thinned(config.attn_pdrop)
            if residual:
                self.resid_drop = thinned(config.resid_pdrop)

    return Candidate


def run(candidate: Any, check: str = "dropout", **rates: float) -> CaseResult:
    pair = resolve(CausalSelfAttention, candidate, kind="module", device="cpu")
    return BY_NAME[check].run(pair, CASE.but(**rates))


@pytest.mark.parametrize(
    ("attention", "residual", "which"),
    [(True, False, "attention"), (False, True, "others"), (True, True, "attention and others")],
)
@pytest.mark.parametrize("check", ["dropout", "modes"])
def test_a_factor_in_float32_is_right_and_noted(attention: bool, residual: bool, which: str, check: str) -> None:
    result = run(with_dropouts(attention, residual, Thinned), check, attn_pdrop=0.1, resid_pdrop=0.3)
    assert any(f"the factor of dropout is float32's ({which})" in note for note in result.notes), result.notes


@pytest.mark.parametrize("thinned", [Nearly, Off])
def test_another_factor_is_seen(thinned: type[nn.Dropout]) -> None:
    with pytest.raises(Mismatch, match="further from the oracle"):
        run(with_dropouts(True, False, thinned), attn_pdrop=0.1, resid_pdrop=0.3)
