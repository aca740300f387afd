"""The gate refuses a report whose domain is narrower than it must be, and names one that was narrowed."""

from pathlib import Path

import pytest
from gate_reasons import noted, reasons_of, the_reason
from green_reports import green

from equivcheck.errors import UsageError

SIZES = "head_size in (64, 128)"


@pytest.mark.parametrize(
    ("domain", "required"),
    [
        ("", SIZES),
        (SIZES, SIZES),
        ("head_size % 16 == 0", SIZES),
        ("head_size in (64, 128) and seq_len >= 16", "head_size == 64 and seq_len >= 32"),
        ("n_head * head_size <= 512", "n_head <= 2 and head_size <= 128"),
    ],
)
def test_a_domain_that_has_all_required_cases_is_green(tree: Path, domain: str, required: str) -> None:
    assert reasons_of(tree, green(tree, domain=domain), domain=required) == []


@pytest.mark.parametrize(
    ("domain", "required", "case"),
    [
        ("head_size == 64", SIZES, "head_size 128"),
        ("head_size in (64, 128) and seq_len % 16 == 0", SIZES, "head_size 64, seq_len 1"),
        ("kv_len == seq_len", "kv_len >= seq_len", "kv_len 2, seq_len 1"),
        ("dtype == 'bfloat16'", "dtype in ('bfloat16', 'float16')", "dtype float16"),
        ("n_head * head_size <= 512", "n_head == 8 and head_size >= 128", "head_size 128, n_head 8"),
    ],
)
def test_a_case_that_a_domain_leaves_out_is_named(tree: Path, domain: str, required: str, case: str) -> None:
    assert f"leaves out {case}, which" in the_reason(tree, green(tree, domain=domain), domain=required)


def test_a_function_as_a_domain_is_not_taken_for_an_expression(tree: Path) -> None:
    assert "is the function pkg.mod:inside" in the_reason(tree, green(tree, domain="pkg.mod:inside"), domain=SIZES)


def test_a_required_domain_that_does_not_parse_is_a_line_for_the_user(tree: Path) -> None:
    with pytest.raises(UsageError, match="head_sizes"):
        reasons_of(tree, green(tree), domain="head_sizes == 64")


def test_a_narrowed_domain_is_a_note_unless_one_is_required(tree: Path) -> None:
    narrow = green(tree, domain=SIZES)
    note = f"report0: judged for {SIZES} alone; --require-domain says which cases must be judged"
    assert note in noted(tree, narrow)
    assert note not in noted(tree, narrow, domain=SIZES)
    assert not any("judged for" in line for line in noted(tree, green(tree)))
