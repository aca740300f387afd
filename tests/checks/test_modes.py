"""Modes: what is switched or changed in any order is obeyed, and what is not is told with the steps that show it."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.cases.strategies import simpler
from equivcheck.checks.base.check import CaseResult
from equivcheck.checks.modes import STEPS, modes
from equivcheck.errors import Mismatch
from equivcheck.gpt import GPT
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve

CASE = Case(
    batch_size=2,
    seq_len=4,
    n_head=2,
    head_size=4,
    block_size=6,
    attn_pdrop=0.5,
    resid_pdrop=0.25,
    seed=1,
)


def pair(candidate: Any = FlashCausalSelfAttention, original: Any = CausalSelfAttention) -> Pair:
    return resolve(original, candidate, kind="module", device="cpu")


def held(candidate: Any, steps: str, **changes: Any) -> CaseResult:
    return modes(pair(candidate), CASE.but(steps=steps, **changes))


def seen(candidate: Any, steps: str, **changes: Any) -> str:
    with pytest.raises(Mismatch) as found:
        held(candidate, steps, **changes)
    return str(found.value)


# --- what is right ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", ["", *STEPS, "tetf", "tabzft", "hslft", "twrcmf", "tinotp", "dtafehl", "tctctc"])
def test_the_shipped_pair_obeys(steps: str) -> None:
    found = held(FlashCausalSelfAttention, steps, training="e" not in steps)
    assert found.judged
    assert not found.notes
    assert found.ratio is not None
    assert found.ratio <= 1


def test_a_gpt_with_the_fused_attention_obeys() -> None:
    subject = resolve(GPT, lambda config: GPT(config, attention=FlashCausalSelfAttention), kind="model", device="cpu")
    for steps in ("taf", "thzs"):
        assert not modes(subject, CASE.but(steps=steps, n_layer=2, vocab_size=5)).notes


def test_every_step_has_words_and_a_letter_that_an_id_can_hold() -> None:
    for letter, (words, _) in STEPS.items():
        assert Case.parse(CASE.but(steps=letter).id).steps == letter
        assert words.strip()
    assert len({words for words, _ in STEPS.values()}) == len(STEPS)


def test_what_the_original_cannot_do_is_asked_of_nobody() -> None:
    class NoCopies(CausalSelfAttention):
        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("one of a kind")

    found = modes(pair(original=NoCopies), CASE.but(steps="c"))
    assert not found.judged
    assert found.notes == ("not judged where the original raises RuntimeError",)


# --- what is wrong ---------------------------------------------------------------------------------------------------


class Fused(CausalSelfAttention):
    """Right; each of those below gets one thing wrong."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.parts(x)
        return self._merge(F.scaled_dot_product_attention(q, k, v, dropout_p=self.rate(), is_causal=True))

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self._heads(x)

    def rate(self) -> float:
        return self.attn_drop.p if self.attn_drop.training else 0.0


class RateOfTheConfig(Fused):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.built = config.attn_pdrop

    def rate(self) -> float:
        return self.built if self.attn_drop.training else 0.0


class ModeOfTheModule(Fused):
    def rate(self) -> float:
        return self.attn_drop.p if self.training else 0.0


class OffAfterEval(Fused):
    over = False

    def rate(self) -> float:
        self.over = self.over or not self.attn_drop.training
        return 0.0 if self.over else super().rate()


class WeightsOfTheFirstEval(Fused):
    kept: Tensor | None = None

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self.training:
            return super().parts(x)
        if self.kept is None:
            self.kept = self.value.weight.detach().clone()
        q, k, v = super().parts(x)
        shift = F.linear(x, self.kept.to(x.dtype) - self.value.weight.detach())
        return q, k, v + shift.view(*x.shape[:2], self.n_head, -1).transpose(1, 2)


class ScaleOfTheLongest(Fused):
    longest = 0

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        self.longest = max(self.longest, x.shape[1])
        q, k, v = super().parts(x)
        return q * (x.shape[1] / self.longest), k, v


class FloatForEver(Fused):
    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().parts(x)
        return q, k, v.float().to(v.dtype)


class EvalAfterInference(Fused):
    inferred = False

    def rate(self) -> float:
        self.inferred = self.inferred or torch.is_inference_mode_enabled()
        return 0.0 if self.inferred else super().rate()


def test_the_one_that_the_wrong_ones_are_made_of_is_right() -> None:
    assert not held(Fused, "tafbzoe").notes


@pytest.mark.parametrize(
    ("candidate", "steps", "message"),
    [
        (RateOfTheConfig, "ta", "train(), the first dropout's p = 0.6"),
        (ModeOfTheModule, "to", "train(), the first dropout's mode switched alone"),
        (OffAfterEval, "tet", "train(), eval(), train()"),
        (WeightsOfTheFirstEval, "ew", "eval(), weights times 0.75"),
        (ScaleOfTheLongest, "lh", "the whole sequence, the first half of the sequence"),
        (FloatForEver, "d", "double()"),
        (EvalAfterInference, "ti", "train(), a call in inference mode"),
    ],
)
def test_what_is_not_obeyed_is_named_with_the_steps_before_it(candidate: Any, steps: str, message: str) -> None:
    assert seen(candidate, steps).startswith(f"after {message}, with a call after each: ")


@pytest.mark.parametrize(
    ("candidate", "steps"),
    [
        (RateOfTheConfig, ("", "t", "et")),
        (ModeOfTheModule, ("t", "ea", "w")),
        (OffAfterEval, ("t", "ta", "e")),
        (WeightsOfTheFirstEval, ("t", "e", "tw")),
        (FloatForEver, ("t", "e")),
        (EvalAfterInference, ("i", "tn")),
    ],
)
def test_it_is_not_named_where_it_makes_no_difference(candidate: Any, steps: tuple[str, ...]) -> None:
    for done in steps:
        held(candidate, done, training=done.startswith("t"))


def test_a_mismatch_without_steps_is_one_as_built() -> None:
    class NeverDrops(Fused):
        def rate(self) -> float:
            return 0.0

    assert seen(NeverDrops, "", training=True).startswith("as built: ")


def test_steps_that_do_not_matter_are_dropped_one_by_one() -> None:
    """As the search does, by `simpler`: of eight steps the two that show the fault are left."""
    case = CASE.but(steps="wtranfta")
    seen(RateOfTheConfig, case.steps)

    def fails(case: Case) -> bool:
        try:
            modes(pair(RateOfTheConfig), case)
        except Mismatch:
            return True
        return False

    while smaller := next((c for c in simpler(case) if len(c.steps) < len(case.steps) and fails(c)), None):
        case = smaller
    assert case.steps == "ta"


def test_a_module_that_cannot_be_copied_where_the_original_can_is_seen() -> None:
    class NoCopies(Fused):
        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("one of a kind")

    assert "after deepcopy, with a call after each: the candidate raises RuntimeError" in seen(NoCopies, "c")


# --- a candidate whose masks cannot be read off ----------------------------------------------------------------------


class Closed(Fused):
    """Right, but that hooks and adapters of its value are missed: masks cannot be read off."""

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, _ = super().parts(x)
        return q, k, F.linear(x, self.value.weight, self.value.bias).view(*x.shape[:2], self.n_head, -1).transpose(1, 2)


class ClosedRateOfTheConfig(Closed, RateOfTheConfig):
    pass


def test_where_masks_are_unreadable_distributions_are_compared() -> None:
    found = held(Closed, "tab")
    assert found.where == "the distribution over masks"
    assert len(found.notes) == 1
    assert found.notes[0].startswith(
        "masks cannot be read off, and modes with dropout were judged by distributions alone: "
    )


class ClosedWeightsOfTheFirstCall(Closed):
    """In eval without gradients the weight of the keys is that of the first such call."""

    first: Any = None

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super().parts(x)
        if self.training or torch.is_grad_enabled():
            return q, k, v
        if self.first is None:
            self.first = (self.key.weight.clone(), self.key.bias.clone())
        return q, F.linear(x, *self.first).view(k.transpose(1, 2).shape).transpose(1, 2), v


@pytest.mark.parametrize("steps", ["ew", "ewnt"])
def test_where_masks_are_unreadable_results_without_dropout_are_exact(steps: str) -> None:
    if steps.endswith("t"):  # it drops again: distributions alone
        assert held(ClosedWeightsOfTheFirstCall, steps).judged
        return
    message = seen(ClosedWeightsOfTheFirstCall, steps)
    assert message.startswith("after eval(), weights times 0.75, with a call after each: output")


def test_where_masks_are_unreadable_a_rate_not_obeyed_is_seen() -> None:
    message = seen(ClosedRateOfTheConfig, "ta")
    assert message.startswith("after train(), the first dropout's p = 0.6, with a call after each: ")
    assert "of outputs and input gradients is not the original's" in message
