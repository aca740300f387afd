"""Attention by blocks is attention: the same outputs and gradients as T x T scores give, without ever making those."""

import math

import pytest
import torch
from largest_tensor import Largest
from torch import Tensor

from equivcheck.numerics import blockwise


def direct(q: Tensor, k: Tensor, v: Tensor, scale: float) -> Tensor:
    T = q.shape[-2]
    later = torch.ones(T, T, dtype=torch.bool).triu(1)
    return torch.softmax((q @ k.mT * scale).masked_fill(later, -math.inf), -1) @ v


def drawn(B: int, H: int, T: int, D: int, E: int | None = None) -> list[Tensor]:
    source = torch.Generator().manual_seed(B * H * T * D)
    shapes = [(B, H, T, D), (B, H, T, D), (B, H, T, E or D)]
    return [torch.randn(s, generator=source, dtype=torch.float64).requires_grad_() for s in shapes]


@pytest.mark.parametrize(
    ("B", "H", "T", "D", "E", "block"),
    [
        (1, 1, 1, 3, None, None),
        (1, 1, 1, 1, None, 5),
        (2, 3, 37, 5, None, 7),
        (1, 2, 64, 4, None, 64),
        (1, 2, 64, 4, None, 63),
        (1, 2, 65, 4, None, 64),
        (2, 1, 33, 4, None, 1),
        (2, 2, 50, 8, None, None),
        (1, 2, 20, 4, 6, 100),
    ],
)
def test_equals_the_direct_computation(B: int, H: int, T: int, D: int, E: int | None, block: int | None) -> None:
    qkv = drawn(B, H, T, D, E)
    out, true = blockwise.attention(*qkv, scale=0.7, block=block), direct(*qkv, 0.7)
    flowing = torch.randn(out.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(out, true, rtol=0, atol=1e-13)
    for ours, its in zip(torch.autograd.grad(out, qkv, flowing), torch.autograd.grad(true, qkv, flowing), strict=True):
        torch.testing.assert_close(ours, its, rtol=0, atol=1e-12)


def test_is_the_derivative_of_its_own_forward() -> None:
    assert torch.autograd.gradcheck(lambda *x: blockwise.attention(*x, scale=0.5, block=3), drawn(1, 2, 8, 3))


def test_an_upstream_gradient_of_any_layout_is_welcome() -> None:
    qkv = drawn(1, 1, 9, 4)
    blockwise.attention(*qkv, scale=1.0, block=2).sum().backward()  # expanded, with strides of 0
    (expected,) = torch.autograd.grad(direct(*qkv, 1.0).sum(), qkv[2:])
    torch.testing.assert_close(qkv[2].grad, expected)


@pytest.mark.parametrize("kept", [1, 6, 7, 8, 20])
def test_what_comes_later_never_counts(kept: int) -> None:
    q, k, v = drawn(1, 2, 21, 4)
    true = blockwise.attention(q, k, v, scale=1.0, block=7)
    loud = [torch.cat((x[..., :kept, :], 1e6 * x[..., kept:, :].sign()), -2) for x in (q, k, v)]
    got = blockwise.attention(*loud, scale=1.0, block=7)
    assert torch.equal(got[..., :kept, :], true[..., :kept, :])
    grads = torch.autograd.grad(true[..., :kept, :].sum(), (q, k, v))
    assert not any(bool(g[..., kept:, :].any()) for g in grads)


def test_no_tensor_is_larger_than_a_block_of_scores() -> None:
    T, block = 300, 16
    qkv = drawn(1, 1, T, 4)
    with Largest() as seen:
        blockwise.attention(*qkv, scale=0.5, block=block).sum().backward()
    assert T * 4 < seen.numel <= block * T


def test_the_block_shrinks_as_the_sequence_grows() -> None:
    for device in (torch.device("cpu"), torch.device("cuda")):
        for length in (1, 1000, 16384, 131072):
            heads, queries = blockwise.block_shape(8, length, device)
            assert 1 <= heads <= 8
            assert 1 <= queries <= length
            assert heads * queries * length * 8 <= 2**28
    assert blockwise.block_shape(8, 131072, torch.device("cuda")) == (1, 256)


def test_refuses_what_it_cannot_mean() -> None:
    q, k, v = drawn(1, 1, 4, 2)
    with pytest.raises(ValueError, match="q has 3 positions and k 4"):
        blockwise.attention(q[..., :3, :], k, v, scale=1.0)
    with pytest.raises(ValueError, match="block=0"):
        blockwise.attention(q, k, v, scale=1.0, block=0)
