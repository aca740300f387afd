"""Generation: the same tokens, greedy or sampled, except where rounding decides between two."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks.base.check import CaseResult
from equivcheck.checks.generation import generation
from equivcheck.errors import Mismatch
from equivcheck.gpt import GPT
from equivcheck.pairs.resolve import resolve

CASE = Case(batch_size=2, seq_len=6, n_head=2, head_size=4, block_size=9, n_layer=1, vocab_size=17, seed=1)
TIE = "a token lay at a tie that rounding explains"


def held(candidate: Any, case: Case = CASE) -> CaseResult:
    return generation(resolve(CausalSelfAttention, candidate, kind="module", device="cpu"), case)


def of_models(candidate: Any, case: Case = CASE, original: Any = GPT) -> CaseResult:
    return generation(resolve(original, candidate, kind="model", device="cpu"), case)


def seen(run: Callable[..., CaseResult], candidate: Any, case: Case = CASE, **options: Any) -> Mismatch:
    with pytest.raises(Mismatch) as found:
        run(candidate, case, **options)
    return found.value


def fused(config: Any) -> GPT:
    return GPT(config, attention=FlashCausalSelfAttention)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16", "float16"])
def test_the_shipped_pair_generates_alike(dtype: str) -> None:
    for seed in range(3):
        held(FlashCausalSelfAttention, CASE.but(dtype=dtype, seed=seed))


def test_short_and_full_prompts_are_continued_past_the_block() -> None:
    for length in (1, 9):
        of_models(fused, CASE.but(seq_len=length, n_layer=2))


def test_in_train_mode_and_with_rates_it_is_generated_in_eval() -> None:
    assert not held(FlashCausalSelfAttention, CASE.but(training=True, attn_pdrop=0.5, resid_pdrop=0.5)).notes


def test_a_model_without_a_generate_of_its_own_is_asked_token_by_token() -> None:
    class Bare(GPT):
        generate = None  # type: ignore[assignment]  # as in a model that has none

    class Louder(Bare):
        def forward(self, idx: Tensor, targets: Tensor | None = None, return_attentions: bool = False) -> Any:
            logits, loss = super().forward(idx, targets)
            return logits.flip(-1), loss

    assert not of_models(Bare, original=Bare).notes
    assert seen(of_models, Louder, original=Bare).where == "greedy"


# --- what is wrong ---------------------------------------------------------------------------------------------------


class Unmasked(CausalSelfAttention):
    """Of one layer this would be right: the last token may see all of the others."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._heads(x)
        return self._merge(F.scaled_dot_product_attention(q, k, v))


class WrongAtTheWholeBlock(FlashCausalSelfAttention):
    """Right as long as the context is shorter than it may be."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return -y if x.shape[1] == self.mask.shape[-1] else y


def test_an_attention_that_sees_the_future_is_seen() -> None:
    assert seen(held, Unmasked, CASE.but(vocab_size=73, n_layer=2)).where in ("greedy", "sampled")


def test_what_goes_wrong_past_the_block_is_named_with_the_token() -> None:
    message = str(seen(held, WrongAtTheWholeBlock, CASE.but(vocab_size=73, seed=2)))
    assert "of sequence" in message
    assert "in the original: rounding does not explain it" in message
    which = int(message.split(" of sequence")[0].rpartition(" ")[2])
    assert which >= 4  # three positions are left in the block


class SampledAlwaysGreedily(GPT):
    def generate(
        self,
        idx: Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        do_sample: bool = False,
        top_k: int | None = None,
    ) -> Tensor:
        return super().generate(idx, max_new_tokens)


class OneTokenLess(GPT):
    def generate(
        self,
        idx: Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        do_sample: bool = False,
        top_k: int | None = None,
    ) -> Tensor:
        return super().generate(idx, max_new_tokens - 1, temperature, do_sample, top_k)


class PromptShifted(GPT):
    def generate(
        self,
        idx: Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        do_sample: bool = False,
        top_k: int | None = None,
    ) -> Tensor:
        found = super().generate(idx, max_new_tokens, temperature, do_sample, top_k)
        found[:, 0] = (found[:, 0] + 1) % self.head.out_features
        return found


def test_a_model_that_never_samples_is_seen_by_its_sampled_tokens() -> None:
    found = seen(of_models, SampledAlwaysGreedily)
    assert found.where == "sampled"
    assert str(found).startswith("sampled token ")


def test_another_number_of_tokens_and_another_prompt_are_named() -> None:
    message = str(seen(of_models, OneTokenLess))
    assert message == "generate gives (2, 17) torch.int64, and (2, 18) torch.int64 in the original"
    assert str(seen(of_models, PromptShifted)) == "generate changes the prompt"


def test_a_candidate_that_raises_is_a_mismatch() -> None:
    class Raising(CausalSelfAttention):
        def forward(self, x: Tensor) -> Tensor:
            raise ZeroDivisionError("planted")

    assert "ZeroDivisionError: planted" in str(seen(held, Raising))


# --- ties ------------------------------------------------------------------------------------------------------------


class Tied(GPT):
    """Logits in pairs of all but the same size: rounding alone says which of the two is the greater."""

    favours = 0

    def forward(self, idx: Tensor, targets: Tensor | None = None, return_attentions: bool = False) -> Any:
        logits, _ = super().forward(idx)
        tied = logits.clone()
        tied[..., 1::2] = logits[..., : tied.shape[-1] // 2 * 2 : 2]
        # as much as a unit in the last place of the greatest of them
        tied[..., self.favours :: 2] += self.by(logits)
        loss = F.cross_entropy(tied.flatten(0, 1), (idx if targets is None else targets).reshape(-1))
        return tied, loss

    def by(self, logits: Tensor) -> Tensor:
        return logits.detach().abs().amax() * torch.finfo(logits.dtype).eps


class TiedOtherwise(Tied):
    favours = 1


class NearlyTied(Tied):
    def by(self, logits: Tensor) -> Tensor:
        return logits.detach().abs().amax() * 4e-3


class NearlyTiedOtherwise(NearlyTied):
    favours = 1


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_tie_that_rounding_explains_is_a_note_and_no_mismatch(dtype: str) -> None:
    case = CASE.but(dtype=dtype, vocab_size=16)
    assert of_models(TiedOtherwise, case, original=Tied).notes == (TIE,)
    assert of_models(Tied, case, original=Tied).notes == ()


def test_a_difference_of_logits_that_is_small_and_no_rounding_is_no_tie() -> None:
    case = CASE.but(vocab_size=16)
    assert of_models(NearlyTied, case, original=NearlyTied).notes == ()
    found = seen(of_models, NearlyTiedOtherwise, case, original=NearlyTied)
    assert str(found).startswith("greedy token 1 of sequence 0 is ")
    # as small as this it is rounding in half precision
    assert of_models(NearlyTiedOtherwise, case.but(dtype="bfloat16"), original=NearlyTied).notes == (TIE,)
