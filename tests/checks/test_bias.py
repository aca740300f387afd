"""The check `bias`: roundings all one way are seen, and a zero gradient is no bias."""

from typing import Any

import pytest
import torch.nn.functional as F
from check_cases import BY_NAME, FAULT, case_of, pair
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.errors import Mismatch
from equivcheck.faults import RIGHT
from equivcheck.pairs.resolve import resolve


def test_rounding_toward_zero_is_seen_beside_rounding_to_nearest() -> None:
    case = case_of("bias").but(dtype="bfloat16")
    right = next(right for right in RIGHT if right.name == "softmax-in-float32")  # the same but for the rounding
    assert BY_NAME["bias"].run(pair(right.attention), case).ratio <= 1
    with pytest.raises(Mismatch, match="unit roundoffs of bfloat16"):
        BY_NAME["bias"].run(pair(FAULT["probabilities-toward-zero"].attention), case)


class _KeyBiasWithoutGradient(CausalSelfAttention):
    """Scores of a row that are all moved by as much are the same probabilities: the gradient of a key's bias is zero."""

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, _, v = super()._heads(x)
        B, T, C = x.shape
        k = F.linear(x, self.key.weight) + self.key.bias.detach() + 0 * self.key.bias
        return q, k.view(B, T, self.n_head, C // self.n_head).transpose(1, 2), v


def test_a_gradient_of_exact_zeros_is_not_biased() -> None:
    case = Case(batch_size=1, seq_len=5, n_head=1, head_size=32, block_size=5)
    for dtype in ("float32", "float64"):
        BY_NAME["bias"].run(pair(_KeyBiasWithoutGradient), case.but(dtype=dtype))


class Normed(CausalSelfAttention):
    """With a norm over a width of one the gradient of its weight is zero, and float64 rounds it to something else."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.norm = nn.LayerNorm(config.n_embd, eps=1e-12)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(super().forward(x) + x)


class NormedFast(Normed):
    """The same by a kernel of torch."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._heads(x)
        return self.norm(self._merge(F.scaled_dot_product_attention(q, k, v, is_causal=True)) + x)


class NormedTooSmall(NormedFast):
    """The same, with results that are a hundredth too small."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * 0.99


def test_a_mean_that_the_original_has_as_well_is_no_bias() -> None:
    case = Case(seq_len=2, block_size=2, dtype="bfloat16")
    result = BY_NAME["bias"].run(resolve(Normed, NormedFast, kind="module", device="cpu"), case)
    assert result.ratio is not None
    assert result.ratio <= 1


def test_a_mean_that_the_original_has_not_is_bias_beside_one_that_it_has() -> None:
    case = Case(seq_len=24, block_size=24, n_head=2, head_size=8, batch_size=2, dtype="bfloat16")
    with pytest.raises(Mismatch, match="unit roundoffs"):
        BY_NAME["bias"].run(resolve(Normed, NormedTooSmall, kind="module", device="cpu"), case)
