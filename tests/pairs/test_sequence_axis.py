"""The layout of a function's tensors is read off the original: (B, T, H, D) where it mixes along dimension 1 alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from equivcheck.cases.case import Case, arrange
from equivcheck.cases.words import LAYOUTS
from equivcheck.checks.layouts import layouts
from equivcheck.checks.values import gradients, output
from equivcheck.errors import Mismatch
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve
from equivcheck.pairs.sequence_axis import HEADS_LAST, heads_last, mixes_along

CPU = [torch.device("cpu")]
CASE = Case(batch_size=2, seq_len=6, n_head=3, head_size=4, block_size=6)


def heads_first(q: Tensor, k: Tensor, v: Tensor, causal: bool = False, softmax_scale: float = 1.0) -> Tensor:
    s = q @ k.mT * softmax_scale  # (B, H, T, S)
    if causal:
        s = s.masked_fill(~torch.ones(s.shape[-2:], dtype=torch.bool).tril(s.size(-1) - s.size(-2)), -float("inf"))
    return s.softmax(-1) @ v


def like_flash_attn(q: Tensor, k: Tensor, v: Tensor, causal: bool = False, softmax_scale: float = 1.0) -> Tensor:
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return heads_first(q, k, v, causal, softmax_scale).transpose(1, 2)


def over_heads_too(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return heads_first(q, k, v) + like_flash_attn(q, k, v)


def always_causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return like_flash_attn(q, k, v, causal=True)


def for_wide_heads_in_half_precision(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    assert q.size(-1) in (64, 128)
    assert q.dtype is torch.bfloat16
    return like_flash_attn(q, k, v)


def pair_of(reference: Any, candidate: Any = None) -> Pair:
    return resolve(reference, candidate or reference, kind="function", device="cpu")


@pytest.mark.parametrize(
    ("function", "mixed"),
    [
        (heads_first, (2,)),
        (like_flash_attn, (1,)),
        (always_causal, (1,)),
        (over_heads_too, (1, 2)),
        (for_wide_heads_in_half_precision, (1,)),
        (lambda q, k, v: q + k, ()),
        (lambda q, k, v: None, None),
    ],
)
def test_attention_mixes_along_its_sequence(function: Callable[..., Any], mixed: tuple[int, ...] | None) -> None:
    assert mixes_along(function, CPU) == mixed


def test_a_function_of_heads_last_is_judged_in_that_layout_and_a_note() -> None:
    pair = pair_of(like_flash_attn)
    assert pair.heads_last
    assert HEADS_LAST in pair.notes
    problem = pair.problem(CASE)
    assert problem.inputs[0].shape == (2, 3, 6, 4)
    torch.testing.assert_close(problem.reference(*problem.inputs), heads_first(*problem.inputs, True, 4**-0.5))


def test_a_function_of_heads_first_is_judged_as_before() -> None:
    pair = pair_of(heads_first)
    assert not pair.heads_last
    assert pair.notes == ()


def test_one_that_mixes_heads_as_well_is_judged_as_before_and_a_note() -> None:
    pair = pair_of(over_heads_too)
    assert not pair.heads_last
    assert any("dimension 1 and along dimension 2" in note for note in pair.notes)


def test_the_original_is_asked_in_one_call() -> None:
    calls = []

    def counted(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        calls.append(q.shape)
        return like_flash_attn(q, k, v)

    mixes_along(counted, CPU)
    assert len(calls) == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_in_memory_is_that_of_the_user(layout: str) -> None:
    seen: dict[str, Tensor] = {}

    def looking(q: Tensor, k: Tensor, v: Tensor, causal: bool = False, softmax_scale: float = 1.0) -> Tensor:
        seen.update(q=q, k=k, v=v)
        return like_flash_attn(q, k, v, causal, softmax_scale)

    problem = pair_of(looking).problem(CASE.but(layout=layout, dtype="float64", regime="constant_v"))
    problem.run(problem.reference, problem.inputs, gradients=False)
    expected = arrange(torch.zeros(2, 6, 3, 4, dtype=torch.float64), layout)
    for x in (*seen.values(), problem.upstream["output"].transpose(1, 2)):
        assert x.shape == expected.shape
        assert x.stride() == expected.stride()


def test_a_candidate_of_the_other_layout_is_different() -> None:
    with pytest.raises(Mismatch):
        output(pair_of(like_flash_attn, heads_first), CASE)


@pytest.mark.parametrize("check", [output, gradients, layouts])
def test_right_ones_of_heads_last_are_the_same(check: Callable[..., Any]) -> None:
    check(
        pair_of(
            like_flash_attn,
            lambda q, k, v, causal=False, softmax_scale=1.0: like_flash_attn(q, k, v, causal, softmax_scale),
        ),
        CASE,
    )


def test_a_kernel_of_heads_last_gets_contiguous_tensors_in_every_check() -> None:
    def strict(q: Tensor, k: Tensor, v: Tensor, causal: bool = False, softmax_scale: float = 1.0) -> Tensor:
        assert q.is_contiguous(), "q must be contiguous"
        return like_flash_attn(q, k, v, causal, softmax_scale)

    output(pair_of(strict), CASE)


def test_what_is_no_tensor_is_returned_as_it_is() -> None:
    x = torch.zeros(1, 1, 1, 1)
    assert heads_last(lambda q, k, v: ("log", 1))(x, x, x) == ("log", 1)
