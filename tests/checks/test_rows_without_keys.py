"""Queries that see no key: their gradient has no meaning, and that of every other sample has one."""

import math
from typing import Any

import pytest
import torch
from searches import BY_NAME
from torch import Tensor

from equivcheck.cases.case import Case
from equivcheck.errors import Mismatch
from equivcheck.pairs.resolve import resolve

HIDDEN = Case(batch_size=4, seq_len=5, n_head=1, head_size=4, block_size=5, mask="left")
"""Causal with padding on the left: of some samples the first queries see no key, of others all see one."""


def filled(q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    """An original that fills hidden scores: the gradient through a row without a key is 0."""
    s = q @ k.mT * q.size(-1) ** -0.5  # (B, H, T, S)
    if is_causal:
        s = s.masked_fill(torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).triu(1), -math.inf)
    if attn_mask is not None:
        s = s.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else s + attn_mask
    return s.softmax(-1) @ v


def added(q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    """A right candidate that adds minus infinity, and scales before: the gradient through such a row is NaN."""
    bias = torch.zeros(q.size(-2), k.size(-2), dtype=q.dtype, device=q.device)  # (T, S)
    if is_causal:
        bias = bias.masked_fill(torch.ones_like(bias, dtype=torch.bool).triu(1), -math.inf)
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        bias = bias + torch.zeros_like(attn_mask, dtype=q.dtype).masked_fill(~attn_mask, -math.inf)
    elif attn_mask is not None:
        bias = bias + attn_mask
    return ((q * q.size(-1) ** -0.5) @ k.mT + bias).softmax(-1) @ v


class _Spoils(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        ctx.spoils = not bool(y.isfinite().all())
        return y.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * math.nan if ctx.spoils else grads[0]


def spoiled(q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    """A wrong candidate: one row without a key spoils the gradients of the whole batch."""
    return _Spoils.apply(filled(q, k, v, attn_mask=attn_mask, is_causal=is_causal))


def cases_with_a_row() -> list[Case]:
    subject = resolve(filled, filled, kind="function", device="cpu")
    drawn = [HIDDEN.but(seed=seed) for seed in range(40)]
    truths = [(case, subject.problem(case).oracle_values(gradients=False)["output"]) for case in drawn]
    cases = [case for case, y in truths if 0 < int((~y.isfinite()).flatten(1).any(1).sum()) < case.batch_size]
    assert cases
    return cases


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_right_candidate_that_hides_keys_otherwise_passes(dtype: str) -> None:
    subject = resolve(filled, added, kind="function", device="cpu")
    for case in cases_with_a_row():
        assert BY_NAME["gradients"].run(subject, case.but(dtype=dtype)).judged


def test_a_gradient_of_another_sample_that_is_not_finite_is_different() -> None:
    subject = resolve(filled, spoiled, kind="function", device="cpu")
    for case in cases_with_a_row():
        with pytest.raises(Mismatch, match="not finite"):
            BY_NAME["gradients"].run(subject, case)


def leaking(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """An original whose rows in bfloat16 are not finite where the next one is not, as of a product on some processors."""
    y = filled(q, k, v, **options)  # (B, H, T, D)
    if y.dtype != torch.bfloat16:
        return y
    after = y.detach().roll(-1, -2) * 0.0
    after[..., -1, :] = 0.0
    return y + after


BESIDE = [HIDDEN.but(seq_len=6, block_size=6, mask="rows", dtype="bfloat16", seed=seed) for seed in range(6)]


def test_a_right_candidate_need_not_be_worse_beside_a_row_without_keys() -> None:
    subject = resolve(leaking, filled, kind="function", device="cpu")
    for case in BESIDE:
        assert BY_NAME["output"].run(subject, case).judged


def test_a_candidate_with_more_rows_that_are_not_finite_is_different() -> None:
    subject = resolve(filled, leaking, kind="function", device="cpu")
    for case in BESIDE:
        with pytest.raises(Mismatch, match="not finite"):
            BY_NAME["output"].run(subject, case)
