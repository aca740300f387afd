"""A case, a function, and the line with which a pair is refused."""

from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor

from equivcheck.attention import FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.errors import UsageError
from equivcheck.pairs.resolve import resolve

CASE = Case(batch_size=2, seq_len=5, n_head=2, head_size=4, block_size=6, n_layer=1, vocab_size=11)


def attend(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, dropout_p=dropout_p, scale=scale)


def refusal(reference: Any, candidate: Any = FlashCausalSelfAttention, kind: str = "auto", device: str = "cpu") -> str:
    with pytest.raises(UsageError) as refused:
        resolve(reference, candidate, kind=kind, device=device)
    message = str(refused.value)
    assert "\n" not in message
    return message
