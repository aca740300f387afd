"""Cached decoding: right caches pass, wrong ones are seen in the plan that shows them, and where there is none it is said."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import equivcheck
from equivcheck.cases.case import Case
from equivcheck.checks.decoding import decoding
from equivcheck.errors import Mismatch
from equivcheck.gpt import GPT
from equivcheck.pairs.resolve import resolve

CASE = Case(batch_size=2, seq_len=9, n_head=2, head_size=4, block_size=12, n_layer=1, vocab_size=11, dtype="float64")


class Cached(nn.Module):
    """One layer of attention that takes the keys and values of earlier tokens; `wrong` says how it goes astray with them."""

    wrong = ""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.tok = nn.Embedding(config.vocab_size, config.n_embd)
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.head = nn.Linear(config.n_embd, config.vocab_size)
        self.n_head = config.n_head

    def forward(self, idx: Tensor, cache: tuple[Tensor, Tensor] | None = None) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        B, T = idx.shape
        x = self.tok(idx)
        q, k, v = (t.view(B, T, self.n_head, -1).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        if cache is not None:
            k, v = torch.cat((cache[0], k), 2), torch.cat((cache[1], v), 2)
        S = k.size(2)
        diagonal = 0 if self.wrong == "top-left" else S - T
        seen = torch.ones(T, S, dtype=torch.bool, device=idx.device).tril(diagonal)
        if self.wrong == "chunks see all" and cache is not None:
            seen = torch.ones_like(seen)
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        return self.head(x + y.transpose(1, 2).reshape(B, T, -1)), (k, v)


class TopLeft(Cached):
    wrong = "top-left"


class ChunksSeeAll(Cached):
    wrong = "chunks see all"


def test_a_right_cache_is_equivalent_and_the_run_sensitive() -> None:
    report = equivcheck.verify(Cached, Cached, device="cpu", profile="quick", checks=["decoding", "logits"])
    assert report.equivalent
    assert "logits-off-with-a-cache" in report.sensitivity.planted


@pytest.mark.parametrize(
    ("wrong", "plan"), [(TopLeft, "half at once and then token by token"), (ChunksSeeAll, "in chunks of a third")]
)
def test_a_wrong_cache_is_seen(wrong: Any, plan: str) -> None:
    assert equivcheck.verify(Cached, wrong, device="cpu", profile="quick", checks=["logits"]).equivalent
    with pytest.raises(Mismatch, match=f"with a cache, {plan}"):
        decoding(resolve(Cached, wrong, kind="auto", device="cpu"), CASE)


def test_a_model_without_a_cache_is_not_judged_and_it_is_said() -> None:
    held = decoding(resolve(GPT, GPT, kind="model", device="cpu"), CASE)
    assert not held.judged
    assert "takes no cache" in held.notes[0]


def test_an_original_whose_own_cache_is_wrong_judges_nobody() -> None:
    held = decoding(resolve(TopLeft, Cached, kind="auto", device="cpu"), CASE)
    assert not held.judged
    assert "the original's own cache gives other logits" in held.notes[0]
