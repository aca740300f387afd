"""Tables that are made at the first call and kept: right at `values` and `training`, whoever called first."""

from functools import lru_cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.api import verify
from equivcheck.attention import CausalSelfAttention

QUICK: dict[str, Any] = {"device": "cpu", "profile": "quick", "dtypes": ["float32"], "domain": "kv_len == seq_len"}


def decay(length: int, dtype: torch.dtype) -> Tensor:
    """A factor of each position: (length, 1)."""
    return torch.linspace(0.5, 1.5, length, dtype=torch.float64)[:, None].to(dtype)


kept = lru_cache(None)(decay)


def slow(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    q = q * decay(q.size(-2), q.dtype)
    s = (q @ k.mT * k.size(-1) ** -0.5).masked_fill(torch.ones(q.size(-2), k.size(-2)).triu(1) > 0, -torch.inf)
    return s.softmax(-1) @ v


def fast(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q * kept(q.size(-2), q.dtype), k, v, is_causal=True)


class Slow(CausalSelfAttention):
    """Queries grow with the position."""

    def table(self, x: Tensor) -> Tensor:
        return decay(x.size(-2), x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x * self.table(x))


class Keeps(Slow):
    """The table of a length is made at its first call."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.tables: dict[Any, Tensor] = {}

    def table(self, x: Tensor) -> Tensor:
        key = x.size(-2), x.dtype
        if key not in self.tables:
            self.tables[key] = super().table(x)
        return self.tables[key]


class KeepsOrdinary(Keeps):
    """The table is an ordinary tensor, whatever mode the first call is in."""

    def table(self, x: Tensor) -> Tensor:
        with torch.inference_mode(False):
            return super().table(x)


def test_a_function_that_keeps_tables_is_equivalent() -> None:
    report = verify(slow, fast, kind="function", checks=["output", "gradients", "purity"], **QUICK)
    assert report.equivalent, report.differences


@pytest.mark.parametrize(("candidate", "trains"), [(Keeps, False), (KeepsOrdinary, True)])
def test_what_cannot_train_after_inference_is_different_at_transforms(candidate: Any, trains: bool) -> None:
    report = verify(Slow, candidate, kind="module", checks=["output", "purity", "modes"], **QUICK | {"domain": None})
    assert (report.levels["transforms"] != "different") == trains
    assert (report.levels["values"], report.levels["training"]) == ("equivalent", "equivalent"), report.differences
    shown = [(result.name_of(finding), finding) for result in report.results for finding in result.shown]
    assert [name for name, _ in shown] == ([] if trains else ["purity.inference"])
    for _, finding in shown:
        assert "after a first call in inference mode: the candidate raises" in finding.counterexample.message
