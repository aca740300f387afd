"""A whole GPT keeps its logits, loss and gradients when its attention is replaced."""

from hypothesis import given

import equivcheck
from equivcheck.attention import replace_attention_with_flash_attention
from equivcheck.cases import Case
from equivcheck.checks.values import logits
from equivcheck.gpt import GPT
from equivcheck.kinds import resolve
from equivcheck.strategies import cases

TestReplacement = equivcheck.suite(
    "equivcheck.gpt:GPT",
    "equivcheck.attention:replace_attention_with_flash_attention",
    checks=["causality", "interface", "checkpoint", "errors", "purity"],
)


@given(
    case=cases(
        n_layers=(1, 2, 4),
        max_seq_len=70,
        max_batch_size=3,
        max_heads=4,
        max_head_size=16,
        regimes=("sharpened", "near_initial", "large_scores", "ties", "same_sign_v", "constant_v"),
        layouts=("contiguous", "transposed", "offset", "expanded"),
    )
)
def test_logits_loss_and_gradients_of_a_gpt_survive_the_replacement(device: str, case: Case) -> None:
    logits(resolve(GPT, replace_attention_with_flash_attention, kind="replacement", device=device), case)
