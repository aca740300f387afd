"""Searches of a few cases in which nothing is planted, and functions to search."""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.attention import FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS
from equivcheck.engine.search import Search
from equivcheck.engine.strata import classes
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.resolve import resolve

BY_NAME = {check.name: check for check in CHECKS}


CASE = Case(batch_size=2, seq_len=9, n_head=2, head_size=8, block_size=12)


def searched(reference: Any, candidate: Any, *checks: str, kind: str = "auto", cases: int = 16) -> list[Search]:
    """The searches of these checks, in few cases; nothing is planted."""
    subject = resolve(reference, candidate, kind=kind, device="cpu")
    searches = [Search(BY_NAME[name], subject, cases, 30, math.inf, lambda _: None) for name in checks or ("output",)]
    for search in searches:
        search.run(classes(search.check, subject, DTYPES, cases), 0)
    return searches


def different(reference: Any, candidate: Any, *checks: str, **options: Any) -> bool:
    searches = searched(reference, candidate, *checks, **options)
    assert any(search.failed or any(held.judged for held in search.passed.values()) for search in searches)
    return any(search.failed for search in searches)


def smallest(reference: Any, candidate: Any, *checks: str) -> tuple[Case, str]:
    (search, *_) = [search for search in searched(reference, candidate, *checks) if search.minimal is not None]
    assert search.minimal is not None
    return search.minimal, str(search.failed[search.minimal])


def changing(change: Callable[[Tensor], Any], base: type[nn.Module] = FlashCausalSelfAttention) -> type[nn.Module]:
    class Changed(base):  # type: ignore[misc, valid-type]  # a class of either side
        def forward(self, x: Tensor) -> Any:
            return change(super().forward(x))

    return Changed


def eager(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    s = q @ k.mT * (q.size(-1) ** -0.5 if scale is None else scale)  # (B, H, T, S)
    if is_causal:
        s = s.masked_fill(torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).triu(1), -math.inf)
    return s.softmax(-1) @ v


def fused(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=scale)
