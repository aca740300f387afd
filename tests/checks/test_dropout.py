"""Dropout: results are exact under the candidate's own masks, and masks are random, or the distribution alone is claimed."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks.base.check import CaseResult
from equivcheck.checks.dropout.dropout import dropout
from equivcheck.errors import Mismatch
from equivcheck.pairs.resolve import resolve

CASE = Case(
    seq_len=6, n_head=2, head_size=4, block_size=6, training=True, attn_pdrop=0.25, resid_pdrop=0.1, dtype="float64"
)
"""Of a batch of one, so that its masks are judged too."""
PAIR = CASE.but(batch_size=2)


def held(candidate: Any, case: Case = CASE) -> CaseResult:
    return dropout(resolve(CausalSelfAttention, candidate, kind="module", device="cpu"), case)


def seen(candidate: Any, case: Case = CASE) -> str:
    with pytest.raises(Mismatch) as found:
        held(candidate, case)
    return str(found.value)


class Masked(CausalSelfAttention):
    """Right, with a mask of its own; each of those below gets one thing wrong."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.parts(x)
        hidden = torch.ones(x.shape[1], x.shape[1]).triu(1) == 1
        p = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(hidden, -torch.inf).softmax(-1)
        return self._merge(self.dropped(p) @ v)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._heads(x)

    def dropped(self, p: Tensor) -> Tensor:
        rate = self.attn_drop.p if self.training else 0.0
        return p * self.kept(p, rate) / (1 - rate) if rate < 1 else p * 0

    def kept(self, p: Tensor, rate: float) -> Tensor:
        return torch.rand_like(p) >= rate


class Closed(Masked):
    """Uses its value's weights, and not its value: masks cannot be read off."""

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, _ = super().parts(x)
        return q, k, F.linear(x, self.value.weight, self.value.bias).view(*x.shape[:2], self.n_head, -1).transpose(1, 2)


class Unscaled(Masked):
    def dropped(self, p: Tensor) -> Tensor:
        return p * self.kept(p, self.attn_drop.p)


class OtherMaskInBackward(Masked):
    def dropped(self, p: Tensor) -> Tensor:
        forth, back = super().dropped(p), super().dropped(p)
        return back + (forth - back).detach()


class ScaledInBackward(Masked):
    def dropped(self, p: Tensor) -> Tensor:
        dropped = super().dropped(p)
        return dropped * 1.001 - (dropped * 0.001).detach()


class Never(Masked):
    def kept(self, p: Tensor, rate: float) -> Tensor:
        return torch.ones_like(p, dtype=torch.bool)


class TenthLower(Masked):
    def kept(self, p: Tensor, rate: float) -> Tensor:
        return torch.rand_like(p) >= 0.9 * rate


class AlwaysTheSame(Masked):
    def kept(self, p: Tensor, rate: float) -> Tensor:
        return torch.rand(p.shape, generator=torch.Generator().manual_seed(1)).to(p) >= rate


class ResidualNeverDropped(Masked):
    """Scaled as if it were: only its mask gives it away."""

    def _merge(self, y: Tensor) -> Tensor:
        y = self.proj(y.transpose(1, 2).flatten(2))
        return y / (1 - self.resid_drop.p) if self.training else y


class Reseeding(Masked):
    def kept(self, p: Tensor, rate: float) -> Tensor:
        torch.manual_seed(7)
        return super().kept(p, rate)


@pytest.mark.parametrize(("candidate", "dtype"), [(FlashCausalSelfAttention, "bfloat16"), (Masked, "float32")])
def test_masks_are_the_candidate_s_own_affair_as_long_as_they_are_random(candidate: Any, dtype: str) -> None:
    found = held(candidate, CASE.but(dtype=dtype))
    assert not found.notes
    assert found.ratio is not None
    assert found.ratio <= 1


@pytest.mark.parametrize("rates", [(0.0, 0.0), (1.0, 0.25), (1.0, 1.0)])
def test_rates_of_0_and_1_are_held_too(rates: tuple[float, float]) -> None:
    assert not held(FlashCausalSelfAttention, CASE.but(attn_pdrop=rates[0], resid_pdrop=rates[1])).notes


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        (Unscaled, r"(?s) times further from the oracle.*\boutput\b"),
        (OtherMaskInBackward, r"grad .* times further from the oracle"),
        (ScaledInBackward, r"grad .* times further from the oracle"),
    ],
)
def test_what_is_done_with_a_mask_is_exact(candidate: Any, words: str) -> None:
    with pytest.raises(Mismatch, match=words):
        held(candidate, PAIR)


@pytest.mark.parametrize(
    ("candidate", "what", "words"),
    [
        (Never, "probabilities", "0 of what is seen is dropped at a rate of 0.25 (everywhere, of "),
        (AlwaysTheSame, "probabilities", "dropped places are not independent: those that lie 1 calls apart have"),
        (ResidualNeverDropped, "outputs", "0 of what is seen is dropped at a rate of 0.1 (everywhere, of "),
    ],
)
def test_a_mask_that_is_not_random_is_named_with_what_is_wrong(candidate: Any, what: str, words: str) -> None:
    message = seen(candidate)
    assert message.startswith(f"the dropout mask of the {what}, at B=16, T=64: {words}"), message


def test_a_rate_a_tenth_lower_is_seen_though_scaled_as_it_should_be() -> None:
    assert "0.09" in seen(TenthLower, CASE.but(attn_pdrop=0.1)).split(" of what is seen is dropped at a rate of 0.1")[0]


def test_a_generator_that_is_seeded_anew_is_seen() -> None:
    # in larger batches nobody looks at the masks of two calls
    assert "it is reseeded" in seen(Reseeding, PAIR.but(resid_pdrop=0.0))


# --- a candidate whose masks cannot be read off ----------------------------------------------------------------------


class ClosedAndNever(Closed, Never):
    pass


def test_where_masks_are_unreadable_distributions_are_compared() -> None:
    found = held(Closed, PAIR)
    assert found.where == "the distribution over masks"
    assert len(found.notes) == 1
    assert found.notes[0].startswith("masks cannot be read off, and dropout was judged by its distribution alone: ")


def test_where_masks_are_unreadable_missing_dropout_is_seen() -> None:
    assert seen(ClosedAndNever, PAIR).startswith("with dropout on, the ")


class KeepsAllAtOne(Masked):
    """What some kernels do at a rate of 1, though they are asked to drop: everything is kept."""

    def dropped(self, p: Tensor) -> Tensor:
        dropped = self.attn_drop(p)
        return p + 0 * dropped if self.training and self.attn_drop.p == 1 else dropped


def test_a_mask_is_a_note_only_if_the_original_drops_so_too() -> None:
    case = CASE.but(attn_pdrop=1.0, resid_pdrop=0.0)
    same = dropout(resolve(KeepsAllAtOne, KeepsAllAtOne, kind="module", device="cpu"), case)
    assert any("so it is in the original" in note for note in same.notes)
    assert "output" in seen(KeepsAllAtOne, case)
