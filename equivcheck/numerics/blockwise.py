"""Plain causal attention by blocks of queries, forward and backward: memory grows with T, never with T x T.

The forward pass saves q, k, v and the output O. The backward pass recomputes a block's probabilities P and forms the
textbook flash recurrence (Dao et al. 2022, algorithm 4): with dP = dO Vᵀ and delta = rowsum(dO * O), dS = P * (dP -
delta). In exact arithmetic that is the original's gradient. Under perturbed operations (`monte_carlo.Rounding`) delta
comes from a rounded O: that is the one error of a flash backward pass that the original does not commit.
"""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

__all__ = ["attention", "block_shape"]

_BLOCK_BYTES, _BLOCK_BYTES_ON_THE_CPU = 2**28, 2**20
"""The most bytes of one block of float64 scores: enough to fill a GPU; on a CPU few enough to stay in its caches."""

_FEWEST = 32  # queries in a block: with fewer, adding to the gradients of all keys costs as much as the scores


def attention(
    q: Float[Tensor, "B H T D"],
    k: Float[Tensor, "B H T D"],
    v: Float[Tensor, "B H T E"],
    *,
    scale: float,
    block: int | None = None,
) -> Float[Tensor, "B H T E"]:
    """softmax(scale q kᵀ + causal) v by blocks of queries, differentiable once.

    Every operation is a plain matmul, softmax or elementwise operation in the dtype of the inputs.

    Args:
        q: Queries.
        k: Keys, as many as queries.
        v: Values.
        scale: The factor of the scores.
        block: Queries in a block; None for a number that suits the memory and the caches.

    Raises:
        ValueError: The lengths of q and k differ, or `block` is not positive.
    """
    if q.shape[-2] != k.shape[-2]:
        raise ValueError(f"q has {q.shape[-2]} positions and k {k.shape[-2]}: causal attention needs as many of both")
    if block is not None and block < 1:
        raise ValueError(f"block={block} is not positive: a block has at least one query")
    B, H, T, E = v.shape
    flat = [x.reshape(B * H, T, x.shape[-1]) for x in (q, k, v)]  # (B*H, T, .)
    out: Tensor = _Attention.apply(*flat, scale, block)  # type: ignore[no-untyped-call]  # torch's, inherited
    return out.view(B, H, T, E)


def block_shape(n_heads: int, length: int, device: torch.device, block: int | None = None) -> tuple[int, int]:
    """The number of heads and the number of queries in one block of scores."""
    allowed = (_BLOCK_BYTES_ON_THE_CPU if device.type == "cpu" else _BLOCK_BYTES) // 8
    queries = min(length, block or max(_FEWEST, allowed // length))
    return min(n_heads, max(1, allowed // (length * queries))), queries


class _Attention(torch.autograd.Function):
    """The recurrence; q, k, v are (N, T, .) with N heads."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, scale: float, block: int | None) -> Tensor:
        out = torch.empty_like(v)  # (N, T, E)
        for n, i in _blocks(q, block):
            p = _probabilities(q, k, n, i, scale)  # (n, i, <= T)
            out[n, i] = torch.bmm(p, v[n, : i.stop])
        ctx.save_for_backward(q, k, v, out)
        ctx.scale, ctx.block = scale, block
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        q, k, v, out = ctx.saved_tensors
        d_out = grads[0].contiguous()  # (N, T, E)
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        delta = (d_out * out).sum(-1, keepdim=True)  # (N, T, 1)
        for n, i in _blocks(q, ctx.block):
            seen = slice(i.stop)  # these queries do not see later keys
            p = _probabilities(q, k, n, i, ctx.scale)  # (n, i, <= T)
            dv[n, seen].add_(torch.bmm(p.mT, d_out[n, i]))
            ds = torch.bmm(d_out[n, i], v[n, seen].mT)  # (n, i, <= T)
            ds.sub_(delta[n, i]).mul_(p)
            del p
            dq[n, i] = torch.bmm(ds, k[n, seen])
            dk[n, seen].add_(torch.bmm(ds.mT, q[n, i]))
        # dq and dk are scaled, and not each block of dS: that is one pass over T elements instead of one over T x T
        return dq.mul_(ctx.scale), dk.mul_(ctx.scale), dv, None, None


def _blocks(q: Tensor, block: int | None) -> Iterator[tuple[slice, slice]]:
    N, T, _ = q.shape
    heads, queries = block_shape(N, T, q.device, block)
    for n in range(0, N, heads):
        for i in range(0, T, queries):
            yield slice(n, min(n + heads, N)), slice(i, min(i + queries, T))


def _probabilities(q: Tensor, k: Tensor, n: slice, i: slice, scale: float) -> Tensor:
    """softmax of the scores of queries `i` with all keys up to the last of them, (n, i, i.stop)."""
    scores = torch.bmm(q[n, i] * scale, k[n, : i.stop].mT)  # (n, i, i.stop)
    rows = i.stop - i.start
    later = torch.ones(rows, rows, dtype=torch.bool, device=q.device).triu_(1)  # (i, i): in the diagonal block only
    scores[..., i].masked_fill_(later, -torch.inf)
    return torch.softmax(scores, -1)
