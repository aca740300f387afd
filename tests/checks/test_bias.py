"""The check `bias`: roundings all one way are seen, and a zero gradient is no bias."""

import pytest
import torch.nn.functional as F
from check_cases import BY_NAME, FAULT, case_of, pair
from torch import Tensor

from equivcheck.attention import CausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.errors import Mismatch
from equivcheck.faults import RIGHT


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
