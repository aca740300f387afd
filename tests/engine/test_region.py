"""The region of a difference: right for faults of which it is known, none where no field decides, and bounded in cost."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import equivcheck
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.cases.domain import Domain
from equivcheck.checks import CHECKS
from equivcheck.engine.region import MOST_VARIANTS, Around, region_of
from equivcheck.engine.region_axes import MOST_OF_ONE, MOST_WORK, work_of
from equivcheck.engine.region_words import tried_in_words
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve
from equivcheck.report.outcomes import CaseOutcome

Fails = Callable[[Case], bool]
OUTPUT = next(check for check in CHECKS if check.name == "output")


def function(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, scale: float, **options: Any) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=scale, **options)


def with_options(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    is_causal: bool,
    scale: float,
    attn_mask: Tensor | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    return function(q, k, v, is_causal=is_causal, scale=scale, attn_mask=attn_mask, enable_gqa=enable_gqa)


@pytest.fixture(scope="module")
def module() -> Pair:
    return resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="module", device="cpu")


@pytest.fixture(scope="module")
def functions() -> Pair:
    return resolve(with_options, with_options, kind="function", device="cpu")


class Judge:
    """A check whose outcome is a condition on the case; it counts its cases."""

    def __init__(self, fails: Fails, outside: Fails = lambda case: False) -> None:
        self.fails, self.outside = fails, outside
        self.cases: list[Case] = []

    def __call__(self, case: Case) -> CaseOutcome:
        self.cases.append(case)
        if self.outside(case):
            return CaseOutcome(case.id, judged=False, outside=True)
        failed = "it differs" if self.fails(case) else None
        spot = {"tensor": "output"} if failed else {}
        return CaseOutcome(case.id, ratio=1e6 if failed else 0.1, failed=failed, origin="Mismatch a.py:1", spot=spot)


def varied(pair: Pair, fails: Fails, passed: Sequence[Case] = (), **fields: Any) -> tuple[dict[str, Any], list[Case]]:
    """The region of a condition around a case of these fields, and the cases that were run."""
    base = Case(**{"block_size": fields.get("seq_len", 1), **fields})
    judge = Judge(fails)
    return region_of(Around(failed={base: 1e6}, passed=passed), judge, OUTPUT, pair, DTYPES), judge.cases


def keys(case: Case) -> int:
    return case.kv_len or case.seq_len


@pytest.mark.parametrize(
    ("fails", "base", "region"),
    [
        (lambda c: c.seq_len >= 257, {"seq_len": 257}, "seq_len >= 257"),
        (
            lambda c: c.n_head == 12 and c.batch_size > 1,
            {"n_head": 12, "batch_size": 2},
            "batch_size >= 2 and n_head == 12",
        ),
        (
            lambda c: c.dtype in ("float16", "bfloat16"),
            {"dtype": "bfloat16"},
            "dtype in ('bfloat16', 'float16')",
        ),
        (lambda c: c.head_size % 8 != 0, {}, "head_size % 8 != 0"),
        (lambda c: c.training, {"training": True}, "training"),
        (lambda c: c.layout == "strided", {"seq_len": 2, "layout": "strided"}, "layout == 'strided'"),
        (lambda c: c.regime == "large_scores", {"regime": "large_scores"}, "regime == 'large_scores'"),
        (lambda c: c.seq_len <= 64, {}, "seq_len <= 64"),
    ],
)
def test_the_region_of_a_module_is_the_condition_of_its_fault(
    module: Pair, fails: Fails, base: dict[str, Any], region: str
) -> None:
    fields, _ = varied(module, fails, **base)
    assert fields["region"] == region
    assert Domain.parse(region)


@pytest.mark.parametrize(
    ("fails", "base", "region"),
    [
        (lambda c: not c.is_causal and c.seq_len == 1, {"is_causal": False}, "seq_len == 1 and not is_causal"),
        (lambda c: keys(c) > 64, {"kv_len": 65}, "kv_len >= 65"),
        (lambda c: keys(c) > c.seq_len and c.is_causal, {"kv_len": 2}, "is_causal and kv_len > seq_len"),
        (lambda c: 0 < c.kv_heads < c.n_head, {"n_head": 2, "kv_heads": 1}, "kv_heads < n_head"),
        (lambda c: c.value_size not in (0, c.head_size), {"value_size": 5}, "value_size != head_size"),
        (lambda c: c.mask == "some", {"seq_len": 2, "mask": "some", "is_causal": False}, "mask == 'some'"),
    ],
)
def test_the_region_of_a_function_has_keys_heads_and_masks(
    functions: Pair, fails: Fails, base: dict[str, Any], region: str
) -> None:
    fields, cases = varied(functions, fails, **base)
    assert fields["region"] == region
    assert len(cases) <= MOST_VARIANTS


def test_what_is_wrong_everywhere_has_no_region_and_says_what_was_tried(module: Pair) -> None:
    fields, _ = varied(module, lambda case: True)
    assert fields["region"] == ""
    assert fields["tried"].startswith("for every batch_size, seq_len, n_head, head_size, dtype")


def test_what_depends_on_the_numbers_has_no_region(module: Pair) -> None:
    fields, _ = varied(module, lambda case: case.seed % 3 == 0)
    assert (fields["region"], fields["tried"]) == ("", "")


def test_a_case_that_no_condition_describes_leaves_the_region_empty(module: Pair) -> None:
    passes = Case(seq_len=300, block_size=300, n_head=3)
    fields, _ = varied(module, lambda case: case.seq_len >= 257, [passes], seq_len=257)
    assert fields["region"] == ""
    assert "257" in fields["tried"]


def test_few_cases_of_little_cost_are_run(module: Pair) -> None:
    for length in (1, 64, 257):
        _, cases = varied(module, lambda case, length=length: case.seq_len >= length, seq_len=length)  # type: ignore[misc]
        assert len(cases) == len(set(cases)) <= MOST_VARIANTS
        assert sum(map(work_of, cases)) <= MOST_WORK
        assert max(map(work_of, cases)) <= max(MOST_OF_ONE, 2 * work_of(cases[0]))


def test_the_domain_of_the_pair_is_never_left(module: Pair) -> None:
    inside = replace(module, domain=Domain.parse("head_size in (64, 128) and seq_len <= 40"))
    fields, cases = varied(inside, lambda case: case.seq_len >= 33, seq_len=33, head_size=64)
    assert fields["region"] == "seq_len >= 33"
    assert all(inside.domain.allows(case) for case in cases)


def test_what_the_original_refuses_counts_neither_way(module: Pair) -> None:
    base = Case(seq_len=33, block_size=33)
    judge = Judge(lambda case: case.seq_len >= 33, outside=lambda case: case.head_size > 1 or case.seq_len > 60)
    fields = region_of(Around(failed={base: 1e6}), judge, OUTPUT, module, DTYPES)
    assert fields["region"] == "seq_len >= 33"
    assert "head_size" not in fields["tried"]


def test_a_coarse_dtype_that_hides_the_difference_is_no_condition(module: Pair) -> None:
    base = Case(seq_len=2, block_size=2)
    judge = Judge(lambda case: case.seq_len >= 2 and case.dtype in ("float32", "float64"))
    fields = region_of(Around(failed={base: 100.0}), judge, OUTPUT, module, DTYPES)
    assert fields["region"] == "seq_len >= 2"
    assert "rounding in bfloat16 and float16 would hide it" in fields["tried"]


def test_the_largest_failure_is_that_of_all_cases(module: Pair) -> None:
    small, large = Case(seq_len=2, block_size=2), Case(seq_len=9, block_size=9)
    around = Around(failed={small: 5.0, large: 700.0}, most=0)
    judge = Judge(lambda case: True)
    fields = region_of(around, judge, OUTPUT, module, DTYPES)
    assert (fields["largest_case"], fields["largest_ratio"]) == (large.id, 700.0)
    assert (fields["region"], fields["tried"], judge.cases) == ("", "", [])
    assert "largest_case" not in region_of(
        Around(failed={small: math.inf, large: 7.0}, most=0), judge, OUTPUT, module, DTYPES
    )


def test_what_was_tried_reads_well() -> None:
    lengths = dict.fromkeys((257, 320), True) | dict.fromkeys((1, 2, 3, 64, 128, 192, 256), False)
    assert tried_in_words({"seq_len": lengths, "dtype": {"float32": True, "float16": True}}, ["seq_len"]) == (
        "257, 320 fail; 1, 2, 3 … 256 pass, for every dtype tried"
    )
    two = {"is_causal": {False: True, True: False}, "mask": {"some": True, "": False}, "n_head": {1: True}}
    assert tried_in_words(two, ["is_causal", "mask"]) == (
        "is_causal: false fails; true passes; mask: some fails; none passes"
    )


class WrongOffEight(CausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * 1.1 if x.size(2) // self.n_head % 8 else y


def test_a_run_says_where_its_first_difference_fails() -> None:
    report = equivcheck.verify(
        CausalSelfAttention, WrongOffEight, device="cpu", profile="quick", checks=["output"], dtypes=["float32"]
    )
    counterexample = report.results[0].counterexample
    assert counterexample is not None
    assert counterexample.diagnosis.region == "head_size % 8 != 0"
    assert counterexample.message.startswith("fails where head_size % 8 != 0 (1, ")
    assert torch.isfinite(torch.tensor(counterexample.diagnosis.largest_ratio or 0.0))
