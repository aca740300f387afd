"""An additive mask may be learned: its gradient is a result like any other, where the original has one."""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import equivcheck
from equivcheck.cases.case import Case
from equivcheck.engine.causes.options import Reading, attention
from equivcheck.pairs.function_module import FunctionModule
from equivcheck.pairs.resolve import resolve
from equivcheck.report.model import Report


def original(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return attention(Reading(), q, k, v, **options)


def fused(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, scale: float, attn_mask: Tensor | None = None) -> Tensor:
    """Right: torch's own kernels, whose gradient of a mask comes by another way."""
    seen = torch.ones(q.size(-2), k.size(-2), dtype=torch.bool, device=q.device)
    added = torch.zeros((), dtype=q.dtype, device=q.device) if attn_mask is None else attn_mask
    if added.dtype is torch.bool:
        seen, added = seen & added, torch.zeros((), dtype=q.dtype, device=q.device)
    seen = seen.tril() if is_causal else seen
    return F.scaled_dot_product_attention(q, k, v, attn_mask=added.masked_fill(~seen, -math.inf), scale=scale)


class Halved(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] / 2


def learned(mask: Tensor | None) -> bool:
    return mask is not None and mask.requires_grad


def detached(q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
    return original(q, k, v, attn_mask=None if attn_mask is None else attn_mask.detach(), **options)


def zeroed(q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
    y = detached(q, k, v, attn_mask=attn_mask, **options)
    return y + torch.where(attn_mask.isfinite(), attn_mask, 0.0).sum() * 0 if learned(attn_mask) else y  # type: ignore[union-attr]


def halved(q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
    mask: Any = Halved.apply(attn_mask) if learned(attn_mask) else attn_mask  # type: ignore[no-untyped-call]
    return original(q, k, v, attn_mask=mask, **options)


def of_the_first_head(q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
    """All heads use a mask that they share, and only the first one's gradient reaches it."""
    if learned(attn_mask) and attn_mask is not None and attn_mask.size(1) == 1:
        others = attn_mask.detach().expand(-1, q.size(1) - 1, -1, -1)
        attn_mask = torch.cat((attn_mask, others), 1)
    return original(q, k, v, attn_mask=attn_mask, **options)


def refusing(q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None = None, **options: Any) -> Tensor:
    if learned(attn_mask):
        raise ValueError("a mask is not learned here")
    return original(q, k, v, attn_mask=attn_mask, **options)


def refusing_one_that_broadcasts(
    q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None = None, **options: Any
) -> Tensor:
    if learned(attn_mask) and attn_mask is not None and attn_mask.size(1) < q.size(1):
        raise ValueError("such a mask is not learned here")
    return original(q, k, v, attn_mask=attn_mask, **options)


def judged(reference: Any, candidate: Any) -> Report:
    return equivcheck.verify(reference, candidate, device="cpu", checks=["gradients"], profile="quick", seed=3)


@pytest.mark.parametrize("candidate", [detached, zeroed, halved, of_the_first_head])
def test_a_wrong_mask_gradient_is_a_small_counterexample(candidate: Any) -> None:
    report = judged(original, candidate)
    assert report.verdict == "different"
    found = report.results[0].counterexample
    assert found is not None
    assert "grad attn_mask" in found.message
    case = Case.parse(found.case)
    assert case.mask in ("additive", "both", "bias")
    assert case.batch_size * case.n_head * case.seq_len * case.head_size <= 8


@pytest.mark.parametrize("candidate", [original, fused])
def test_a_right_mask_gradient_passes_and_a_lost_one_is_planted(candidate: Any) -> None:
    report = judged(original, candidate)
    assert report.equivalent
    assert (
        "gradient-of-an-additive-mask-lost" in report.sensitivity.planted
    )  # and equivalent: each planted one was caught


@pytest.mark.parametrize("candidate", [refusing, refusing_one_that_broadcasts])
def test_a_kernel_that_refuses_a_learned_mask_is_a_note(candidate: Any) -> None:
    report = judged(original, candidate)
    assert report.equivalent
    assert "gradient-of-an-additive-mask-lost" not in report.sensitivity.planted
    assert any("the gradient of an additive mask (ValueError" in note for note in report.results[0].notes)


@pytest.mark.parametrize("reference", [detached, refusing])
def test_where_the_original_has_no_gradient_for_a_mask_nothing_is_asked(reference: Any) -> None:
    assert not resolve(reference, original, kind="function", device="cpu").learns_mask
    assert judged(reference, original).equivalent


def test_a_mask_is_learned_in_every_second_case_with_the_same_numbers() -> None:
    made = []
    for seed in range(4):
        case = Case(seq_len=3, block_size=3, mask="additive", is_causal=False, seed=seed, dtype="bfloat16")
        for asked in (False, True):
            module = FunctionModule(original, case, learned=asked)
            made.append(len(list(module.parameters())))
            assert module.attn_mask is not None
            assert torch.equal(module.attn_mask, FunctionModule(original, case).attn_mask)  # type: ignore[arg-type]
    assert made == [0, 1, 0, 1, 0, 0, 0, 0]


def test_no_truth_is_kept_from_before_masks_were_known_to_be_learned() -> None:
    subject = resolve(original, original, kind="function", device="cpu")
    assert subject.learns_mask
    case = Case(seq_len=3, block_size=3, mask="additive", is_causal=False)
    assert ("function", case) not in subject.memory.truths
    assert "grad attn_mask" in subject.problem(case).truth(gradients=True).values
