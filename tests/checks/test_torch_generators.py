"""torch's own generators are not fully random on CUDA: a right candidate is not held to them, a wrong one is seen."""

from typing import Any

import pytest
import torch
from check_cases import PLAIN, pair
from torch import Tensor

from equivcheck.attention import CausalSelfAttention
from equivcheck.checks.base.check import CaseResult
from equivcheck.checks.dropout import moments
from equivcheck.checks.dropout.dropout import dropout
from equivcheck.checks.dropout.moments import compare_moments, small_sizes
from equivcheck.checks.dropout.torch_masks import drawn_by_torch
from equivcheck.errors import Mismatch
from equivcheck.pairs.resolve import resolve

HALF_CASE = PLAIN.but(training=True, attn_pdrop=0.3, dtype="float16")


class OddInHalf(CausalSelfAttention):
    """Its dropout does nothing in half precision, as if torch's masks had repeated there."""

    def forward(self, x: Tensor) -> Any:
        self.attn_drop.train(self.training and x.dtype is torch.float32)
        return super().forward(x)


class NeverDrops(CausalSelfAttention):
    """It drops nothing in any dtype."""

    def forward(self, x: Tensor) -> Any:
        self.attn_drop.eval()
        return super().forward(x)


def compared(candidate: Any) -> CaseResult:
    problem = pair(candidate).problem(HALF_CASE.but(**small_sizes(HALF_CASE)))
    try:
        return compare_moments(problem, problem.reference, problem.candidate)
    finally:
        dtypes = {p.dtype for m in (problem.reference, problem.candidate) for p in m.parameters()}
        assert dtypes == {torch.float16}


def test_where_torchs_masks_are_random_half_precision_is_judged() -> None:
    with pytest.raises(Mismatch):
        compared(OddInHalf)


def test_where_torchs_masks_repeat_a_difference_must_be_in_float32_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "_of_torch", lambda problem: {"between successive calls": 0.5})
    (note,) = compared(OddInHalf).notes
    assert note.startswith("judged in float32: torch's own masks of float16 depend on each other")
    with pytest.raises(Mismatch):
        compared(NeverDrops)


@pytest.mark.parametrize("what", ["probabilities", "outputs"])
def test_masks_of_torch_have_one_form_however_they_are_drawn(what: str) -> None:
    case = PLAIN.but(batch_size=3, n_head=2, head_size=16, seq_len=8, block_size=8)
    masks = list(drawn_by_torch(what, case, 0.5, torch.device("cpu"), 2))
    assert len({mask.shape for mask in masks}) == 1
    assert all(0.2 < float(mask.double().mean()) < 0.8 for mask in masks[-1:])


def spelled_out(q: Tensor, k: Tensor, v: Tensor, *, dropout_p: float = 0.0, is_causal: bool = True) -> Tensor:
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if is_causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], device=q.device).triu(1) > 0, -torch.inf)
    return torch.dropout(scores.softmax(-1), dropout_p, dropout_p > 0) @ v


def masked_on_the_host(q: Tensor, k: Tensor, v: Tensor, *, dropout_p: float = 0.0, is_causal: bool = True) -> Tensor:
    scores = q @ k.mT / q.shape[-1] ** 0.5
    if is_causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], device=q.device).triu(1) > 0, -torch.inf)
    keep = (torch.rand(scores.shape) >= dropout_p).to(q.device)
    return (scores.softmax(-1) * keep / (1 - dropout_p)) @ v


def test_a_candidate_may_draw_its_masks_on_the_host(device: torch.device) -> None:
    subject = resolve(spelled_out, masked_on_the_host, kind="function", device=str(device))
    dropout(subject, PLAIN.but(training=True, attn_pdrop=0.3, head_size=8, seq_len=8, block_size=8))
