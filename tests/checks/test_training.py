"""Training: two right models stay within the band of rounding, step by step, and one that is a little wrong leaves it."""

import math
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks.base.check import CaseResult
from equivcheck.checks.training import _same_losses, training
from equivcheck.errors import Mismatch
from equivcheck.pairs.resolve import resolve

CASE = Case(
    batch_size=2, seq_len=6, n_head=2, head_size=4, block_size=8, training=True, n_layer=1, vocab_size=17, seed=1
)
DROPPED = CASE.but(attn_pdrop=0.2, resid_pdrop=0.2)


def held(candidate: Any, case: Case = CASE) -> CaseResult:
    return training(resolve(CausalSelfAttention, candidate, kind="module", device="cpu"), case)


def seen(candidate: Any, case: Case = CASE) -> str:
    with pytest.raises(Mismatch) as found:
        held(candidate, case)
    return str(found.value)


def scaled_gradient(x: Tensor, factor: float) -> Tensor:
    return x * factor - (x * (factor - 1)).detach()


class Fused(CausalSelfAttention):
    """Right; each of those below gets one thing wrong."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.parts(x)
        rate = self.attn_drop.p if self.attn_drop.training else 0.0
        return self._merge(F.scaled_dot_product_attention(q, k, v, dropout_p=self.of(rate), is_causal=True))

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._heads(x)

    def of(self, rate: float) -> float:
        return rate


class OnePercentOff(Fused):
    """The gradient of the values is scaled by 1.01: each loss alone looks as it should."""

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().parts(x)
        return q, k, scaled_gradient(v, 1.01)


class WrongFromTheThirdStep(Fused):
    calls = 0

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().parts(x)
        self.calls += torch.is_grad_enabled()
        return q, k, v if self.calls < 3 else 1.01 * v


class Closed(Fused):
    """Uses its value's weights, and not its value: masks cannot be read off."""

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, _ = super().parts(x)
        return q, k, F.linear(x, self.value.weight, self.value.bias).view(*x.shape[:2], self.n_head, -1).transpose(1, 2)


@pytest.mark.parametrize(
    ("candidate", "dtype"),
    [(FlashCausalSelfAttention, "float32"), (FlashCausalSelfAttention, "float64"), (Closed, "float32")],
)
def test_two_right_models_are_trained_alike(candidate: Any, dtype: str) -> None:
    before = torch.get_rng_state()
    found = held(candidate, CASE.but(dtype=dtype))
    assert torch.equal(torch.get_rng_state(), before)
    assert found.judged
    assert found.ratio is not None
    assert found.ratio <= 1


def test_a_gradient_that_is_one_percent_off_leaves_the_band() -> None:
    message = seen(OnePercentOff)
    words = re.match(
        r"in 5 steps the weights moved by (.+), rounding alone by (.+), and the candidate is (.+) from the oracle:\n",
        message,
    )
    assert words is not None
    movement, band, distance = (float(word) for word in words.groups())
    assert 10 * band < distance < 0.1 * movement
    assert "times further from the oracle than rounding" in message


def test_what_goes_wrong_from_the_third_step_on_shows_in_the_losses() -> None:
    assert "losses" in seen(WrongFromTheThirdStep)


# --- with dropout ----------------------------------------------------------------------------------------------------


class Never(Fused):
    def of(self, rate: float) -> float:
        return 0.0


class ClosedAndNan(Closed):
    """No number in train mode: masks cannot be read off, and losses tell it."""

    def _merge(self, y: Tensor) -> Tensor:
        return super()._merge(y) * (math.nan if self.training and self.attn_drop.p else 1)


def test_with_dropout_a_step_is_exact_under_the_candidate_s_own_masks() -> None:
    found = held(FlashCausalSelfAttention, DROPPED)
    assert not found.notes
    assert found.ratio is not None
    assert found.ratio <= 1
    message = seen(OnePercentOff, DROPPED)
    assert "times further from the oracle than rounding" in message
    assert "grad " in message


def test_with_dropout_a_candidate_that_never_drops_is_seen() -> None:
    assert "times further from the oracle than rounding" in seen(Never, DROPPED)


def test_where_masks_are_unreadable_losses_alone_are_compared() -> None:
    (note,) = held(Closed, DROPPED).notes
    assert note.startswith("masks cannot be read off, and training with dropout was judged by its losses alone: ")


def test_where_masks_are_unreadable_losses_of_nan_are_seen() -> None:
    assert seen(ClosedAndNan, DROPPED).startswith("with dropout the loss at step 1 is nan on average, and ")


def losses(mean: float, seed: int) -> Tensor:
    """Of eight trainings of five steps each, with a spread of 0.1."""
    noise = torch.randn(8, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return mean + 0.1 * noise


def test_losses_of_one_distribution_are_the_same_whatever_the_masks() -> None:
    for seed in range(200):
        _same_losses(losses(3.0, 2 * seed), losses(3.0, 2 * seed + 1))


def test_losses_of_another_distribution_are_named_at_the_worst_step() -> None:
    off = losses(3.0, 1)
    off[:, 3] += 4
    with pytest.raises(Mismatch) as found:
        _same_losses(losses(3.0, 0), off)
    assert re.fullmatch(
        r"with dropout the loss at step 4 is 6\.9\d+ on average, and 2\.9\d+ in the original: "
        r"chance allows \d\.\d+ more or less",
        str(found.value),
    )


# --- the band --------------------------------------------------------------------------------------------------------


def test_nothing_is_judged_where_rounding_moves_as_much_as_training() -> None:
    class Chaotic(CausalSelfAttention):
        """Multiplies whatever rounding leaves until it is as large as anything."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.sin(1e6 * super().forward(x))

    subject = resolve(Chaotic, Chaotic, kind="module", device="cpu")
    found = training(subject, CASE)
    assert not found.judged
    assert found.notes == ("the band of rounding is too near to the movement of the weights to tell",)


class FreezesInForward(FlashCausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        self.key.weight.requires_grad_(False)
        return super().forward(x)


class FrozenUntilTheFirstForward(FlashCausalSelfAttention):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.key.weight.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        self.key.weight.requires_grad_(True)
        return y


@pytest.mark.parametrize("candidate", [FreezesInForward, FrozenUntilTheFirstForward])
def test_a_weight_that_is_not_trained_is_a_difference(candidate: Any) -> None:
    assert "key.weight" in seen(candidate)
