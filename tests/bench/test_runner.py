"""Rows of a benchmark for every kind of pair, and what does not fit."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from bench_records import TINY
from torch import Tensor

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention, replace_attention_with_flash_attention
from equivcheck.bench import render
from equivcheck.bench.presets import PRESETS
from equivcheck.bench.runner import RowMeasured, bench
from equivcheck.bench.workloads import flops, makes, rows
from equivcheck.errors import UsageError
from equivcheck.gpt import GPT
from equivcheck.pairs.resolve import resolve


def attend(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, dropout_p=dropout_p, scale=scale)


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every preset with a size that takes no time."""
    small = {name: replace(p, sizes=dict.fromkeys(p.sizes, (TINY,))) for name, p in PRESETS.items()}
    monkeypatch.setattr("equivcheck.bench.workloads.PRESETS", small)
    monkeypatch.setattr("equivcheck.bench.paired_timing._WARM_UP_S", 0.0)
    monkeypatch.setattr("equivcheck.bench.runner._LEAST_S", 0.02)


@pytest.mark.parametrize(
    ("pair", "works"),
    [
        ((CausalSelfAttention, FlashCausalSelfAttention), 4),
        ((attend, attend), 2),
        ((GPT, GPT), 2),
        ((GPT, replace_attention_with_flash_attention), 2),
    ],
)
def test_every_kind_of_pair_is_measured(pair: tuple[Any, Any], works: int) -> None:
    found = bench(*pair, device="cpu", max_seconds=0.1)
    assert found.complete
    assert len(found.lines) == works
    for row in found.lines:
        assert row.ratio is not None
        assert row.low is not None
        assert row.high is not None
        assert row.low <= row.ratio <= row.high
        for side in (row.reference, row.candidate):
            assert side.kernels
            assert side.repetitions >= 5
            assert side.above_bytes
            assert side.flops_per_s


def test_the_fused_side_runs_its_kernel_and_needs_less_memory() -> None:
    row = next(row for row in rows("small", (), "module") if row.work == "attention")
    row = replace(row, size=replace(TINY, T=64, block_size=64))
    subject = resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="module", device="cpu")
    measuring = RowMeasured(subject, row)
    assert measuring.line is None
    measuring.look()
    assert measuring.line is None  # before anything is timed
    for _ in range(2):
        measuring.round(0.02)
    found = measuring.line
    assert found is not None
    assert found.ratio is not None
    assert (found.reference.kernels, found.candidate.kernels) == (("spelled out",), ("flash",))
    assert (found.candidate.above_bytes or 0) < (found.reference.above_bytes or 0)


class TooLarge(FlashCausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        raise torch.OutOfMemoryError("planted")


def test_what_does_not_fit_is_a_result_beside_the_other_ones_time() -> None:
    found = bench(CausalSelfAttention, TooLarge, device="cpu", max_seconds=0.1)
    assert found.complete
    assert len(found.lines) == 4
    for row in found.lines:
        assert row.candidate.refused == "planted"
        assert row.candidate.median_ms is None
        assert row.reference.median_ms is not None
        assert row.ratio is None
    assert "does not fit" in render.plain(found)


def test_backward_passes_run_where_they_are_timed() -> None:
    subject = resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="module", device="cpu")
    needed = {}
    for row in rows("small", (), "module"):
        for make in makes(subject, row):
            make()(0)
        needed[row.work] = flops(row, "module")
    assert needed["attention"] < needed["attention + backward"]
    assert needed["GPT"] < needed["training step"]


def test_dtypes_presets_and_kinds_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="allowed are float32, bfloat16, float16"):
        list(rows("small", ("int8",), "module"))
    with pytest.raises(UsageError, match="unknown preset 'large': allowed are"):
        list(rows("large", (), "module"))
    with pytest.raises(UsageError, match="times attention alone, and the pair is a model"):
        list(rows("long", (), "model"))
