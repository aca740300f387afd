"""A softmax may be spelled out in many ways, in the original or in the candidate: none of them is called wrong for its rounding."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from check_cases import pair
from torch import Tensor

from equivcheck.attention import CausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS
from equivcheck.faults import RIGHT
from equivcheck.faults.correct.another_core import Rewritten, wide
from equivcheck.pairs.resolve import resolve


class _MergedHalves(CausalSelfAttention):
    """Each half of the keys normalised by itself, and both merged by their sums, as where keys are split over blocks or devices."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._heads(x)
        T, half = q.size(-2), (q.size(-2) + 1) // 2
        s = (q @ k.mT * q.size(-1) ** -0.5).masked_fill(self.mask[:, :, :T, :T] == 0, -float("inf"))
        kept = self.attn_drop(torch.ones_like(s))
        most = s.amax(-1, keepdim=True).detach()
        parts = []
        for keys in (slice(0, half), slice(half, T)):
            e = (s[..., keys] - most).exp()
            total = e.sum(-1, keepdim=True)
            p = e / total.clamp_min(torch.finfo(s.dtype).tiny)
            parts.append((total, (p * kept[..., keys]) @ v[..., keys, :]))
        whole = parts[0][0] + parts[1][0]
        return self._merge(sum(total / whole * y for total, y in parts))


def test_parts_that_cancel_under_dropout_are_rounding() -> None:
    case = Case.parse("B2-T7-H1-D16-K7-float32-eval-a0-r0-sharpened-contiguous-s41102-after-aohci")
    for attention in (_MergedHalves, next(r.attention for r in RIGHT if r.name == "halves-merged-by-sums")):
        held = BY_NAME["modes"].run(pair(attention), case)
        assert held.judged
        assert 0 < held.ratio <= 1


BY_NAME = {check.name: check for check in CHECKS}


Attend = Callable[[Tensor, Tensor], Tensor]


def by_the_greatest(s: Tensor, v: Tensor) -> Tensor:
    e = (s - s.amax(-1, keepdim=True)).exp()
    return (e / e.sum(-1, keepdim=True)) @ v


def by_the_greatest_detached(s: Tensor, v: Tensor) -> Tensor:
    e = (s - s.detach().amax(-1, keepdim=True)).exp()
    return (e * e.sum(-1, keepdim=True).reciprocal()) @ v


def in_powers_of_two(s: Tensor, v: Tensor) -> Tensor:
    s = s * math.log2(math.e)
    e = (s - s.detach().amax(-1, keepdim=True)).exp2()
    return (e / e.sum(-1, keepdim=True)) @ v


def divided_at_the_end(s: Tensor, v: Tensor) -> Tensor:
    e = (s - s.detach().amax(-1, keepdim=True)).exp()
    return (e @ v) / e.sum(-1, keepdim=True)


def by_the_logarithm_of_the_sum(s: Tensor, v: Tensor) -> Tensor:
    return (s - s.logsumexp(-1, keepdim=True)).exp() @ v


def by_log_softmax(s: Tensor, v: Tensor) -> Tensor:
    return s.log_softmax(-1).exp() @ v


WAYS = (
    by_the_greatest,
    by_the_greatest_detached,
    in_powers_of_two,
    divided_at_the_end,
    by_the_logarithm_of_the_sum,
    by_log_softmax,
)


def fused(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, scale: float) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=scale)


def ids(way: Attend) -> str:
    return way.__name__


@pytest.mark.parametrize("way", WAYS, ids=ids)
@pytest.mark.parametrize("regime", ["large_scores", "sharpened"])
def test_a_kernel_passes_beside_an_original_that_spells_out_its_softmax(way: Attend, regime: str) -> None:
    def original(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, scale: float) -> Tensor:
        hidden = torch.ones(q.size(-2), k.size(-2), dtype=torch.bool, device=q.device).triu(1)
        s = (q @ k.mT * scale).masked_fill(hidden & is_causal, -math.inf)  # (B, H, T, T)
        return way(s, v)

    subject = resolve(original, fused, kind="function", device="cpu")
    case = Case(batch_size=3, seq_len=31, head_size=77, block_size=31, dtype="float64", regime=regime, seed=1)
    for check in ("output", "gradients"):
        BY_NAME[check].run(subject, case)


class GreatestWithItsGradient(Rewritten):
    """All in the dtype of the input, and the gradient goes through the greatest score, too: it sums to zero but for rounding."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        s = (q @ k.mT) / math.sqrt(q.size(-1))
        return by_the_greatest(s.masked_fill(self.hidden(q), -math.inf), v)


class BlocksOfQueries(Rewritten):
    """First all log-sum-exps, then the probabilities; gradients of keys are added up in the dtype, block by block."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        hidden = self.hidden(q)
        blocks = [slice(first, first + 32) for first in range(0, q.size(-2), 32)]

        def scores(rows: slice) -> Tensor:
            s = q[:, :, rows] * q.size(-1) ** -0.5 @ k.mT
            return wide(s).masked_fill(hidden[rows], -math.inf)

        kept = [scores(rows).logsumexp(-1, keepdim=True) for rows in blocks]
        parts = [(scores(rows) - lse).exp().to(v.dtype) @ v for rows, lse in zip(blocks, kept, strict=True)]
        return torch.cat(parts, 2)


@pytest.mark.parametrize(
    ("attention", "case"),
    [
        (GreatestWithItsGradient, "B1-T257-H1-D2-K257-float16-eval-a0-r0-near_initial-contiguous-s58"),
        (GreatestWithItsGradient, "B1-T200-H1-D2-K200-float16-eval-a0-r0-near_initial-contiguous-s182"),
        (BlocksOfQueries, "B1-T257-H1-D16-K257-float16-eval-a0-r0-tiny-contiguous-s161"),
    ],
)
def test_rows_that_are_rounded_alike_are_not_called_wrong(attention: type, case: str) -> None:
    subject = resolve(CausalSelfAttention, attention, kind="module", device="cpu")
    BY_NAME["gradients"].run(subject, Case.parse(case))
