"""A whole GPT keeps its logits, loss and gradients when its attention is replaced."""

import pytest
from hypothesis import given

import equivcheck
from equivcheck.attention import CausalSelfAttention, replace_attention_with_flash_attention
from equivcheck.cases.case import Case
from equivcheck.cases.strategies import cases
from equivcheck.checks.values import logits
from equivcheck.errors import Mismatch
from equivcheck.faults import FAULTS
from equivcheck.gpt import GPT
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.resolve import resolve

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


FOUR_LAYERS = Case(batch_size=2, seq_len=17, n_head=2, head_size=8, block_size=20, n_layer=4, vocab_size=19, seed=3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_four_layers_keep_their_logits_loss_and_gradients_in_every_dtype(device: str, dtype: str) -> None:
    pair = resolve(GPT, replace_attention_with_flash_attention, kind="replacement", device=device)
    case = FOUR_LAYERS.but(dtype=dtype)
    truth = pair.problem(case).truth(gradients=True)
    parameters = {f"grad {name}" for name, _ in pair.build_reference(case).named_parameters()}
    assert {"logits", "loss", *parameters} == set(truth.values)  # everything is compared
    held = logits(pair, case)
    assert held.ratio is not None
    assert held.ratio <= 1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_fault_in_the_third_layer_alone_is_seen(device: str, dtype: str) -> None:
    fault = next(fault for fault in FAULTS if fault.name == "wrong-in-the-third-layer")
    pair = resolve(CausalSelfAttention, fault.attention, kind="module", device=device)
    with pytest.raises(Mismatch, match="times further from the oracle than rounding"):
        logits(pair, FOUR_LAYERS.but(dtype=dtype))
    assert logits(pair, FOUR_LAYERS.but(dtype=dtype, n_layer=2)).ratio <= 1
