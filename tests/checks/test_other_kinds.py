"""The checks on functions and on whole models."""

from typing import Any

import pytest
import torch.nn.functional as F
from check_cases import BY_NAME, CASES, PLAIN, SEEN, case_of, spelled_out
from torch import Tensor

from equivcheck.attention import FlashCausalSelfAttention
from equivcheck.checks import CHECKS
from equivcheck.errors import Mismatch
from equivcheck.gpt import GPT
from equivcheck.pairs.resolve import resolve


def unscaled(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, dropout_p=dropout_p)


@pytest.mark.parametrize("check", [c.name for c in CHECKS if "function" in c.kinds and c.name in SEEN])
def test_the_kernel_passes_beside_a_function_that_is_spelled_out(check: str) -> None:
    subject = resolve(spelled_out, F.scaled_dot_product_attention, kind="function", device="cpu")
    BY_NAME[check].run(subject, case_of(check).but(resid_pdrop=0.0, scale=0.25))


@pytest.mark.parametrize("check", ["output", "gradients"])
def test_a_function_that_ignores_the_scale_is_seen(check: str) -> None:
    subject = resolve(spelled_out, unscaled, kind="function", device="cpu")
    with pytest.raises(Mismatch):
        BY_NAME[check].run(subject, PLAIN.but(scale=0.25))


def test_the_future_may_be_seen_only_where_it_is_asked_for() -> None:
    subject = resolve(
        spelled_out,
        lambda q, k, v, *, is_causal, dropout_p, scale: F.scaled_dot_product_attention(q, k, v, scale=scale),
        kind="function",
        device="cpu",
    )
    BY_NAME["output"].run(subject, PLAIN.but(is_causal=False))
    with pytest.raises(Mismatch):
        BY_NAME["output"].run(subject, PLAIN)


@pytest.mark.parametrize("check", [c.name for c in CHECKS if "model" in c.kinds and c.name in SEEN])
def test_a_gpt_with_the_fused_attention_passes_beside_the_one_without(check: str) -> None:
    subject = resolve(GPT, lambda config: GPT(config, attention=FlashCausalSelfAttention), kind="model", device="cpu")
    BY_NAME[check].run(subject, case_of(check).but(n_layer=2, vocab_size=5))


def test_a_gpt_whose_loss_is_not_a_mean_is_seen() -> None:
    class Summed(GPT):
        def forward(
            self, idx: Tensor, targets: Tensor | None = None, return_attentions: bool = False
        ) -> tuple[Any, ...]:
            logits, loss = super().forward(idx, targets)
            return logits, None if loss is None else loss * idx.numel()

    with pytest.raises(Mismatch, match="loss"):
        BY_NAME["logits"].run(resolve(GPT, Summed, kind="model", device="cpu"), CASES["logits"])
