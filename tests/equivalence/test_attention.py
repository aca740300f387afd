"""What `pytest --gpu` is about: the fused attention is the original, check by check and under @given."""

import pytest
import torch
from hypothesis import given

import equivcheck
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.cases.strategies import cases
from equivcheck.checks.values import gradients, output
from equivcheck.pairs.resolve import resolve

TestAttention = equivcheck.suite(
    "equivcheck.attention:CausalSelfAttention", "equivcheck.attention:FlashCausalSelfAttention"
)

MODERATE = {"max_seq_len": 260, "max_batch_size": 3, "max_heads": 4, "max_head_size": 64}


@given(case=cases(**MODERATE))
def test_the_fused_attention_gives_the_outputs_of_the_original(device: str, case: Case) -> None:
    output(resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="module", device=device), case)


@given(case=cases(**MODERATE))
def test_the_fused_attention_gives_the_gradients_of_the_original(device: str, case: Case) -> None:
    gradients(resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="module", device=device), case)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("length", [399, 1024, 2049])
def test_long_sequences_on_a_gpu(device: str, dtype: str, length: int) -> None:
    case = Case(batch_size=2, seq_len=length, n_head=8, head_size=32, block_size=length, dtype=dtype)
    gradients(resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="module", device=device), case)
    torch.cuda.empty_cache()
