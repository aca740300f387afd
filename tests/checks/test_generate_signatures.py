"""`generate` is called as the original declares it, and a decoding of the candidate that is wrong is seen."""

from typing import Any

import pytest
import torch
from torch import Tensor

from equivcheck.cases.case import Case
from equivcheck.checks.generation import generation
from equivcheck.errors import Mismatch
from equivcheck.gpt import GPT
from equivcheck.pairs.resolve import resolve

CASE = Case(batch_size=2, seq_len=6, n_head=2, head_size=4, block_size=20, n_layer=1, vocab_size=17, seed=1)


class Greedy(GPT):
    """Its `generate` takes a number of tokens and nothing else."""

    late = draws = False

    @torch.no_grad()
    def generate(self, idx: Tensor, max_new_tokens: int) -> Tensor:  # type: ignore[override]  # fewer options
        for step in range(max_new_tokens):
            logits = self(idx[:, -self.block_size :])[0][:, -1]  # (B, vocab_size)
            if self.late and step > 2:
                logits = -logits
            token = torch.multinomial(logits.softmax(-1), 1) if self.draws else logits.argmax(-1, keepdim=True)
            idx = torch.cat((idx, token), 1)
        return idx


class GreedyLate(Greedy):
    late = True


class Drawing(Greedy):
    draws = True


class DrawingLate(Drawing):
    late = True


class Positional(Greedy):
    """The number of tokens has another name."""

    def generate(self, idx: Tensor, steps: int) -> Tensor:  # type: ignore[override]  # another name
        return super().generate(idx, steps)


class PositionalLate(Positional):
    late = True


class Demanding(Greedy):
    """It requires more than a number of tokens."""

    def generate(self, idx: Tensor, steps: int, tokenizer: Any) -> Tensor:  # type: ignore[override]  # more
        raise TypeError("no tokenizer")


def judged(original: Any, candidate: Any) -> None:
    generation(resolve(original, candidate, kind="model", device="cpu"), CASE)


@pytest.mark.parametrize("model", [Greedy, Drawing, Positional, Demanding])
def test_a_model_generates_as_it_does_itself(model: Any) -> None:
    judged(model, model)


@pytest.mark.parametrize(
    ("original", "candidate"), [(Greedy, GreedyLate), (Drawing, DrawingLate), (Positional, PositionalLate)]
)
def test_a_decoding_that_is_wrong_from_some_step_on_is_seen(original: Any, candidate: Any) -> None:
    with pytest.raises(Mismatch, match="generated token"):
        judged(original, candidate)
