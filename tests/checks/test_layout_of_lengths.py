"""In the check of lengths every upstream gradient lies in memory as the whole one does."""

from typing import Any

import pytest
import torch
from torch import Tensor

from equivcheck.cases.case import Case
from equivcheck.checks.lengths import lengths
from equivcheck.pairs.resolve import resolve

CASE = Case(batch_size=2, seq_len=66, block_size=66, n_head=3, head_size=8, seed=3)
seen: set[tuple[int, ...]] = set()


class Noting(torch.autograd.Function):
    """The identity; it notes the order of the strides of what flows back."""

    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return y.view_as(y)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]  # of one tensor
        if g.shape[-2] > 1:  # of one row strides say nothing
            seen.add(tuple(sorted(range(g.dim()), key=g.stride, reverse=True)))
        return g


def spelled_out(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    hidden = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).triu(1)
    return (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(hidden, -torch.inf).softmax(-1) @ v


def noting(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return Noting.apply(spelled_out(q, k, v))  # type: ignore[no-untyped-call, no-any-return]  # torch's apply


@pytest.mark.parametrize(("layout", "order"), [("contiguous", (0, 1, 2, 3)), ("transposed", (0, 2, 1, 3))])
def test_prefixes_flow_back_as_the_whole_does(layout: str, order: tuple[int, ...]) -> None:
    subject = resolve(spelled_out, noting, kind="function", device="cpu")
    seen.clear()
    lengths(subject, CASE.but(layout=layout))
    assert seen == {order}
