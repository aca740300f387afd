"""Originals and candidates that run in a part of all cases: head sizes, blocks, dtypes, modes, and two at once."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention

Condition = Callable[[Any, Tensor], bool]


def head_size_of(module: Any, x: Tensor) -> int:
    return int(x.size(-1) // module.n_head)


def where(condition: Condition, base: type[nn.Module] = CausalSelfAttention) -> type[nn.Module]:
    """A module that refuses inputs without a condition on itself and on x (B, T, C)."""

    class Narrow(base):  # type: ignore[misc, valid-type]  # a class of either side
        def forward(self, x: Tensor) -> Any:
            if not condition(self, x):
                raise ValueError("not supported")
            return super().forward(x)

    return Narrow


def candidate_where(condition: Condition) -> type[nn.Module]:
    return where(condition, FlashCausalSelfAttention)


def attention(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False) -> Tensor:
    scores = q @ k.mT / math.sqrt(q.size(-1))
    if is_causal:
        scores = scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).tril().logical_not(), -math.inf)
    return scores.softmax(-1) @ v


def function_where(condition: Callable[[Tensor, Tensor, bool], bool]) -> Callable[..., Tensor]:
    """A function that refuses q, k and is_causal without a condition on them."""

    def narrow(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False) -> Tensor:
        assert condition(q, k, is_causal), "not supported"
        return attention(q, k, v, is_causal=is_causal)

    return narrow
