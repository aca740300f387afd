"""What a check makes of a case stays in the domain: parts of sequences, small sizes, configs, and growing sequences."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from searches import BY_NAME, CASE
from torch import Tensor

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.engine.planting import planted
from equivcheck.errors import Mismatch
from equivcheck.gpt import GPT
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve

BLOCKS = "seq_len % 16 == 0 and head_size in (8, 16)"
INSIDE = CASE.but(seq_len=32, block_size=48)


class InBlocks(FlashCausalSelfAttention):
    """Right for lengths that are multiples of sixteen, and refuses all others."""

    def forward(self, x: Tensor) -> Tensor:
        if x.size(1) % 16 or x.size(2) // self.n_head not in (8, 16):
            raise ValueError(f"length {x.size(1)}, width {x.size(2)}")
        return super().forward(x)


def subject(candidate: Any = InBlocks, original: Any = CausalSelfAttention) -> Pair:
    return resolve(original, candidate, kind="module", device="cpu", domain=BLOCKS)


@pytest.mark.parametrize(
    ("check", "case"),
    [
        ("batching", INSIDE),
        ("lengths", INSIDE.but(seq_len=272, block_size=300, n_head=1)),
        ("modes", INSIDE.but(steps="hl")),
        ("modes", INSIDE.but(steps="hts", attn_pdrop=0.25)),
        ("dropout", INSIDE.but(training=True, attn_pdrop=0.25)),
        ("interface", INSIDE),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_candidate_of_whole_blocks_is_right_by_each_check(check: str, case: Case) -> None:
    result = BY_NAME[check].run(subject(), case)
    assert result.judged
    assert "masks cannot be read off" not in " ".join(result.notes)


def test_the_original_of_whole_blocks_may_be_the_one_that_refuses() -> None:
    result = BY_NAME["modes"].run(subject(InBlocks, InBlocks), INSIDE.but(steps="h", attn_pdrop=0.25))
    assert result.judged


@pytest.mark.parametrize(("length", "part"), [(1, 16), (16, 16), (23, 16), (25, 32), (47, 32)])
def test_a_part_has_the_nearest_length_inside(length: int, part: int) -> None:
    problem = subject().problem(INSIDE.but(seq_len=48))
    assert problem.part_of_length(length) == part
    assert replace(problem, domain=type(problem.domain)()).part_of_length(length) == length


def test_without_a_shorter_length_inside_no_part_is_compared() -> None:
    case = INSIDE.but(seq_len=16)
    assert subject().problem(case).part_of_length(8) == 16
    assert BY_NAME["batching"].run(subject(), case).judged


def test_a_growing_sequence_outside_is_not_generated() -> None:
    pair = resolve(GPT, GPT, kind="model", device="cpu", domain="seq_len % 8 == 0")
    case = CASE.but(seq_len=8, n_layer=1, vocab_size=5)
    result = BY_NAME["generation"].run(pair, case)
    assert (result.judged, result.applies) == (False, False)
    assert result.notes == ("the lengths of a growing sequence are outside of the domain",)


@pytest.mark.parametrize(("domain", "doubtful"), [("seq_len % 64 == 0", True), ("seq_len % 16 == 0", False)])
def test_a_fault_at_lengths_outside_is_not_expected(domain: str, *, doubtful: bool) -> None:
    pair = resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="module", device="cpu", domain=domain)
    (fault,) = [f for f in planted(pair, {"lengths"}, "quick", 0) if f.name == "a-band-of-lengths-off"]
    assert fault.doubtful is doubtful


def single(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False) -> Tensor:
    """Computes in float32 whatever comes."""
    q32, k32, v32 = q.float(), k.float(), v.float()
    s = q32 @ k32.mT * q.size(-1) ** -0.5  # (B, H, T, S)
    if is_causal:
        s = s.masked_fill(torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).triu(1), -torch.inf)
    return (s.softmax(-1) @ v32).to(q.dtype)


def single_without_softmax(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False) -> Tensor:
    """The same in another order of operations."""
    q32, k32, v32 = q.float() * q.size(-1) ** -0.5, k.float(), v.float()
    s = q32 @ k32.mT  # (B, H, T, S)
    if is_causal:
        s = s.masked_fill(torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).triu(1), -torch.inf)
    e = (s - s.amax(-1, keepdim=True)).exp()
    return ((e @ v32) / e.sum(-1, keepdim=True)).to(q.dtype)


WIDE = CASE.but(dtype="float64")


@pytest.mark.parametrize("check", ["output", "gradients", "derivatives", "purity"])
@pytest.mark.parametrize("length", [1, 9])
def test_an_original_that_computes_in_float32_has_its_rounding(check: str, length: int) -> None:
    pair = resolve(single, single_without_softmax, kind="function", device="cpu")
    assert BY_NAME[check].run(pair, WIDE.but(seq_len=length)).judged


@pytest.mark.parametrize("check", ["output", "gradients"])
def test_beyond_that_rounding_a_candidate_is_different(check: str) -> None:
    def off(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False) -> Tensor:
        return single(q, k, v, is_causal=is_causal) * (1 + 2e-5)

    with pytest.raises(Mismatch, match="than rounding in float32 explains"):
        BY_NAME[check].run(resolve(single, off, kind="function", device="cpu"), WIDE)


def test_an_exact_original_lends_a_coarse_candidate_nothing() -> None:
    def exact(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False) -> Tensor:
        hidden = torch.zeros(q.size(-2), k.size(-2), dtype=torch.float32, device=q.device)  # asks for float32, too
        s = q @ k.mT * q.size(-1) ** -0.5 + hidden.to(q.dtype)
        if is_causal:
            s = s.masked_fill(torch.ones_like(hidden, dtype=torch.bool).triu(1), -torch.inf)
        return s.softmax(-1) @ v

    with pytest.raises(Mismatch, match="than rounding in float64 explains"):
        BY_NAME["output"].run(resolve(exact, single, kind="function", device="cpu"), WIDE)


def test_an_original_a_little_beyond_its_budget_lends_nothing() -> None:
    def slanted(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False) -> Tensor:
        rounded = q.float().to(q.dtype) - q  # zero in the oracle
        s = (q + 2.0**-20 * rounded) @ k.mT * q.size(-1) ** -0.5  # (B, H, T, S)
        if is_causal:
            s = s.masked_fill(torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).triu(1), -torch.inf)
        return s.softmax(-1) @ v

    with pytest.raises(Mismatch, match="than rounding in float64 explains"):
        BY_NAME["output"].run(resolve(slanted, single, kind="function", device="cpu"), WIDE)


def masked(q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
    s = q @ k.mT * q.size(-1) ** -0.5  # (B, H, T, S)
    if attn_mask is not None:
        s = s.masked_fill(~attn_mask, -torch.inf) if attn_mask.dtype is torch.bool else s + attn_mask
    if is_causal:
        s = s.masked_fill(torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).triu(1), -torch.inf)
    return s.softmax(-1) @ v


def masked_in_place(
    q: Tensor, k: Tensor, v: Tensor, *, attn_mask: Tensor | None = None, is_causal: bool = False
) -> Tensor:
    """The outputs are right, and the caller's mask has what is_causal hides."""
    if attn_mask is not None and attn_mask.dtype is not torch.bool and is_causal and not attn_mask.requires_grad:
        attn_mask.masked_fill_(torch.ones(q.size(-2), k.size(-2), dtype=torch.bool).triu(1), -torch.inf)
    return masked(q, k, v, attn_mask=attn_mask, is_causal=is_causal)


@pytest.mark.parametrize("check", ["output", "purity"])
def test_a_mask_that_a_pass_overwrites_is_a_difference(check: str) -> None:
    pair = resolve(masked, masked_in_place, kind="function", device="cpu")
    case = CASE.but(mask="additive", seed=2)
    BY_NAME[check].run(resolve(masked, masked, kind="function", device="cpu"), case)
    with pytest.raises(Mismatch, match=r"attn_mask was overwritten|modified by an inplace"):
        BY_NAME[check].run(pair, case)
