"""What is wrong only where some gradients are not wanted, in inference mode, or in one slice in half precision is seen."""

from typing import Any

import pytest
import torch
from torch import Tensor

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS
from equivcheck.errors import Mismatch
from equivcheck.pairs.resolve import resolve

BY_NAME = {check.name: check for check in CHECKS}
CASE = Case(batch_size=2, seq_len=9, n_head=2, head_size=4, block_size=10)


def run(check: str, candidate: Any, case: Case) -> None:
    BY_NAME[check].run(resolve(CausalSelfAttention, candidate, kind="module", device="cpu"), case)


class WhereTheInputIsALeaf(CausalSelfAttention):
    """Wrong where parameters need a gradient and the input needs none."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * 1.01 if torch.is_grad_enabled() and not x.requires_grad and self.key.weight.requires_grad else y


class WhereWeightsAreFrozen(CausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y if self.key.weight.requires_grad else y.detach() + 0.5 * (y - y.detach())


class WhereTheKeyIsFrozen(CausalSelfAttention):
    """The gradient of the input through the keys is lost with that of their weight."""

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super()._heads(x)
        return q, k if self.key.weight.requires_grad else k.detach(), v


class InInferenceMode(CausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * 1.01 if torch.is_inference_mode_enabled() else y


@pytest.mark.parametrize(
    ("check", "candidate", "words"),
    [
        ("gradients", WhereTheInputIsALeaf, "alone need"),
        ("gradients", WhereWeightsAreFrozen, "where x alone needs"),
        ("gradients", WhereTheKeyIsFrozen, "alone need"),
        ("output", InInferenceMode, "in inference mode"),
    ],
)
def test_a_condition_around_the_numbers_is_met_and_named(check: str, candidate: Any, words: str) -> None:
    seen = []
    for seed in range(6):
        try:
            run(check, candidate, CASE.but(seed=seed))
        except Mismatch as mismatch:
            seen.append(str(mismatch))
    assert any(words in message for message in seen)


def test_which_gradients_are_wanted_changes_nothing_in_a_right_attention() -> None:
    for seed in range(6):
        run("gradients", FlashCausalSelfAttention, CASE.but(seed=seed))
        run("logits", FlashCausalSelfAttention, CASE.but(seed=seed, n_layer=2, vocab_size=17))


class LastRowOff(CausalSelfAttention):
    """A factor that every single budget of bfloat16 covers, in one position."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return torch.cat((y[:, :-1], y[:, -1:] * 1.03), 1)


SLICED = Case(batch_size=1, seq_len=48, n_head=2, head_size=16, block_size=48, dtype="bfloat16", seed=1)


def test_a_small_factor_in_one_slice_shows_in_the_mean_of_many_problems() -> None:
    run("output", LastRowOff, SLICED)
    with pytest.raises(Mismatch, match="along dimension 1, at 47"):
        run("bias", LastRowOff, SLICED)


class AlikeProbabilities(CausalSelfAttention):
    """Spelled out in the dtype, with the sum in it too: where scores are alike, so are the roundings of a row."""

    def forward(self, x: Tensor) -> Tensor:
        T = x.size(1)
        q, k, v = self._heads(x)
        s = (q @ k.mT * k.size(-1) ** -0.5).masked_fill(self.mask[:, :, :T, :T] == 0, -torch.inf)
        e = (s - s.amax(-1, keepdim=True)).exp()
        return self._merge(self.attn_drop(e / e.sum(-1, keepdim=True)) @ v)


@pytest.mark.parametrize("length", [3, 7, 48])
def test_roundings_that_are_alike_in_a_row_are_no_bias(length: int) -> None:
    run("bias", AlikeProbabilities, SLICED.but(seq_len=length, regime="near_initial"))
    run("bias", FlashCausalSelfAttention, SLICED.but(seq_len=length, regime="near_initial"))
