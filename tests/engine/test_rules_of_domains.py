"""The rule of a field is the simplest condition that is true of what runs and of nothing else."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivcheck.cases.domain import Domain
from equivcheck.engine.discovery.discovered import joined
from equivcheck.engine.discovery.in_words import outside_in_words, rule_in_words
from equivcheck.engine.discovery.rules import allowed_to_candidates, condition, product_bound, rounded

SIZES = (*range(1, 131), 192, 255, 256, 257, 512)


@pytest.mark.parametrize(
    ("runs", "rule"),
    [
        (lambda n: True, ""),
        (lambda n: n % 2 == 0, "head_size % 2 == 0"),
        (lambda n: n % 16 == 0, "head_size % 16 == 0"),
        (lambda n: n >= 32, "head_size >= 32"),
        (lambda n: n <= 64, "head_size <= 64"),
        (lambda n: n == 64, "head_size == 64"),
        (lambda n: n in (64, 128), "head_size in (64, 128)"),
        (lambda n: n in (16, 32, 64, 128, 256), "head_size in (16, 32, 64, 128, 256)"),
        (lambda n: n % 8 == 0 and n <= 128, "head_size % 8 == 0 and head_size <= 128"),
        (lambda n: 16 <= n <= 128, "head_size >= 16 and head_size <= 128"),
        (lambda n: n != 5, "head_size != 5"),
    ],
)
def test_a_rule_of_sizes_is_the_simplest_that_fits(runs: Any, rule: str) -> None:
    assert condition("head_size", {n: runs(n) for n in SIZES}) == rule


@pytest.mark.parametrize(
    ("name", "runs", "rule"),
    [
        (
            "dtype",
            {"bfloat16": True, "float16": True, "float32": False, "float64": False},
            "dtype in ('bfloat16', 'float16')",
        ),
        ("dtype", {"bfloat16": True, "float32": False}, "dtype == 'bfloat16'"),
        ("layout", {"contiguous": True, "offset": True, "strided": False}, "layout != 'strided'"),
        ("is_causal", {True: True, False: False}, "is_causal"),
        ("training", {True: False, False: True}, "not training"),
    ],
)
def test_a_rule_of_words_and_flags_is_the_shorter_list(name: str, runs: Any, rule: str) -> None:
    assert condition(name, runs) == rule


@given(st.sets(st.sampled_from(SIZES), min_size=1))
def test_a_rule_is_true_of_what_runs_and_of_nothing_else(passes: set[int]) -> None:
    rule = condition("seq_len", {n: n in passes for n in SIZES})
    assert {n for n in SIZES if not rule or Domain.parse(rule).may_allow({"seq_len": n})} == passes


@pytest.mark.parametrize(
    ("name", "rule", "allowed"),
    [
        ("head_size", "head_size in (16, 32)", True),
        ("head_size", "head_size <= 64", True),
        ("seq_len", "seq_len % 16 == 0", True),
        ("seq_len", "seq_len >= 8", True),
        ("seq_len", "seq_len >= 2", False),
        ("seq_len", "seq_len % 2 == 0", False),
        ("seq_len", "seq_len % 24 == 0", False),
        ("seq_len", "seq_len <= 64", False),
        ("kv_len", "kv_len == seq_len", True),
        ("is_causal", "is_causal", True),
    ],
)
def test_a_candidate_may_refuse_what_kernels_refuse(name: str, rule: str, allowed: bool) -> None:
    assert allowed_to_candidates(name, rule) is allowed


def test_a_bound_on_a_product_explains_every_trial() -> None:
    assert product_bound({(a, b): a * b <= 512 for a in (1, 2, 4, 8) for b in (64, 128, 129, 257)}) == 512
    assert product_bound({(a, b): a <= 2 for a in (1, 2, 4) for b in (1, 64)}) is None
    assert rounded(500, 516) == 512


@pytest.mark.parametrize(
    ("rule", "inside", "outside"),
    [
        ("head_size in (16, 32)", "head_size in {16, 32}", "head_size not in {16, 32}"),
        ("dtype in ('bfloat16', 'float16')", "dtype in {bfloat16, float16}", "dtype not in {bfloat16, float16}"),
        ("kv_len == seq_len", "kv_len == seq_len", "kv_len != seq_len"),
        ("seq_len % 16 == 0", "seq_len % 16 == 0", "seq_len % 16 != 0"),
        ("is_causal", "is_causal", "not is_causal"),
        ("a and b", "a and b", "cases without a and b"),
    ],
)
def test_a_rule_is_said_in_words_from_both_sides(rule: str, inside: str, outside: str) -> None:
    assert rule_in_words(rule) == inside
    assert outside_in_words(rule) == outside


def test_rules_are_joined_so_that_each_must_hold() -> None:
    assert joined([]) == ""
    assert joined(["a >= 1", "a >= 1"]) == "a >= 1"
    assert joined(["seq_len <= 64 or training", "head_size == 64"]) == "(seq_len <= 64 or training) and head_size == 64"
