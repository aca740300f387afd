"""A dropout mask that comes again in each tile of keys is seen, and one that is drawn tile by tile is right."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from check_cases import PLAIN
from torch import Tensor

from equivcheck.checks.dropout.dropout import dropout
from equivcheck.errors import Mismatch
from equivcheck.pairs.resolve import resolve

CASE = PLAIN.but(training=True, attn_pdrop=0.3, batch_size=1, n_head=2, head_size=8, seq_len=8, block_size=8)


def by_tiles(size: int, *, again: bool) -> Callable[..., Tensor]:
    def attention(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0) -> Tensor:
        p = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        if dropout_p:
            tiles = list(p.split(size, -1))
            kept = [torch.rand_like(tile) >= dropout_p for tile in tiles]
            kept = [kept[0][..., : tile.shape[-1]] for tile in tiles] if again else kept
            p = p * torch.cat(kept, -1) / (1 - dropout_p)
        return p @ v

    return attention


def spelled_out(q: Tensor, k: Tensor, v: Tensor, dropout_p: float = 0.0) -> Tensor:
    return F.dropout((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1), dropout_p, dropout_p > 0) @ v


@pytest.mark.parametrize("size", [64, 128, 256])
def test_one_mask_for_every_tile_is_seen(size: int) -> None:
    with pytest.raises(Mismatch, match=f"{size} keys"):
        dropout(resolve(spelled_out, by_tiles(size, again=True), kind="function", device="cpu"), CASE)


def test_a_mask_for_each_tile_is_right() -> None:
    dropout(resolve(spelled_out, by_tiles(64, again=False), kind="function", device="cpu"), CASE)
