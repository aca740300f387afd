"""Bands of lengths: what is wrong at a few lengths in a row is met, in any attention, forward and backward."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS, CaseResult
from equivcheck.checks.lengths import lengths_of
from equivcheck.engine.search import Search
from equivcheck.engine.strata import classes
from equivcheck.errors import Mismatch
from equivcheck.faults.gradient_edits import rewritten
from equivcheck.faults.inside.decomposed import Parted
from equivcheck.gpt import GPT
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.resolve import resolve

LENGTHS = next(check for check in CHECKS if check.name == "lengths")
CASE = Case(batch_size=2, seq_len=260, n_head=2, head_size=8, block_size=261, seed=3)
BAND = range(141, 149)


def pair(candidate: Any) -> Any:
    return resolve(CausalSelfAttention, candidate, kind="module", device="cpu")


class OffInABand(Parted):
    def mix(self, p: Tensor, v: Tensor) -> Tensor:
        return super().mix(p, v) * (1.05 if p.size(-1) in BAND else 1.0)


class KeyGradientOffInABand(Parted):
    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().heads(x)
        return q, rewritten(k, lambda g: g * 1.05) if k.size(-2) in BAND else k, v


class SecondHeadOffPast256(Parted):
    def mix(self, p: Tensor, v: Tensor) -> Tensor:
        y = super().mix(p, v)
        return y if y.size(-2) <= 256 else torch.cat((y[:, :1], y[:, 1:] * 1.05), 1)


class NotCausal(CausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._heads(x)
        return self._merge((q @ k.mT).softmax(-1) @ v)


@pytest.mark.parametrize("candidate", [CausalSelfAttention, FlashCausalSelfAttention])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_shipped_pair_is_right_at_every_length(candidate: type[nn.Module], dtype: str) -> None:
    held = LENGTHS.run(pair(candidate), CASE.but(dtype=dtype))
    assert held.judged
    assert 0 < (held.ratio or 0) <= 1


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("candidate", [OffInABand, KeyGradientOffInABand])
def test_eight_lengths_in_a_row_are_met_whatever_the_seed(candidate: type[nn.Module], seed: int) -> None:
    with pytest.raises(Mismatch, match=r"the first 14\d of 260 positions alone"):
        LENGTHS.run(pair(candidate), CASE.but(seed=seed))


def test_the_second_head_of_a_long_sequence_is_looked_at() -> None:
    with pytest.raises(Mismatch):
        LENGTHS.run(pair(SecondHeadOffPast256), CASE)


def test_prefixes_of_what_is_not_causal_are_not_compared() -> None:
    subject = resolve(NotCausal, NotCausal, kind="module", device="cpu")
    held = LENGTHS.run(subject, CASE)
    assert not held.judged
    assert "depend on what follows" in held.notes[0]


@pytest.mark.parametrize("seed", range(8))
def test_every_eighth_length_and_the_edges_of_tiles_are_cut(seed: int) -> None:
    found = lengths_of(CASE.but(seed=seed))
    assert len(found) == len(set(found))
    assert {63, 64, 65, 127, 128, 129, 255, 256, 257, 260} <= set(found)
    assert all(any(length in found for length in range(start, start + 8)) for start in range(1, 253))


@pytest.mark.parametrize(("kind", "reference"), [("module", CausalSelfAttention), ("model", GPT)])
def test_long_sequences_are_drawn_with_several_heads_whatever_the_kind(kind: str, reference: Any) -> None:
    drawn: list[Case] = []

    def run(_: Any, case: Case) -> CaseResult:
        drawn.append(case)
        return CaseResult()

    check = replace(LENGTHS, run=run)
    subject = resolve(reference, reference, kind=kind, device="cpu")
    search = Search(check, subject, 8, 0.0, float("inf"), lambda _: None)
    search.run(classes(check, subject, DTYPES, 8), seed=0)
    assert all(257 <= case.seq_len <= 600 or (case.seq_len == 1089 and case.n_head == 1) for case in drawn)
    assert any(case.seq_len > 300 for case in drawn)
    if kind == "module":
        assert any(case.n_head > 1 and case.seq_len > 300 for case in drawn)
