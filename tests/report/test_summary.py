"""The first lines of a run that is different: one block for each distinct cause, the numbers' level first."""

from dataclasses import replace
from typing import Any

from equivcheck.report.diagnosis import Cause, Diagnosis
from equivcheck.report.model import CheckResult, Counterexample, Finding, Report, Sensitivity
from equivcheck.report.summary import case_in_words, summary_lines

FIELDS = {"training": False, "dtype": "float32", "batch_size": 1, "seq_len": 6, "n_head": 1, "head_size": 1}
WINDOW = Cause("window", "each query sees a window of 5 keys", {"keys": 5})


def result(name: str, level: str, case: str, diagnosis: Diagnosis, finding: str = "", **more: Any) -> CheckResult:
    message = "\n  ".join([*diagnosis.first_lines, f"{name} is 3 times further away"])
    options = {"fields": FIELDS, "tensor": "output", "index": (0, 5), "candidate": 1.25, "oracle": 0.5} | more
    example = Counterexample(case, message, f"equivcheck replay {case}", diagnosis=diagnosis, **options)
    return CheckResult(name, "different", 1, findings=(Finding(finding, level, "different", example),))


def report(*results: CheckResult) -> Report:
    return Report(
        "a:A", "b:B", "module", "cpu", "quick", 0, results, Sensitivity(), True, 1.0, "2026-01-01T00:00:00+00:00"
    )


def test_checks_with_one_cause_stand_in_one_block() -> None:
    known = Diagnosis(causes=(WINDOW,), region="seq_len >= 6", tried="6 fails, 5 passes")
    lines = summary_lines(report(result("output", "values", "X", known), result("purity", "values", "Y", known)))
    assert lines == [
        "different at values in output, purity: each query sees a window of 5 keys",
        "  fails where seq_len >= 6 (6 fails, 5 passes)",
        "  smallest case: eval, float32, one sample, 6 positions, one head of size 1; output[0, 5] is 1.25, and 0.5 in the oracle",
        "  replay: equivcheck replay X",
    ]


def test_the_level_of_the_numbers_comes_first_and_a_place_is_named() -> None:
    around = result("interface", "drop-in", "X", Diagnosis(), "attributes", tensor="", fields={})
    inside = result("logits", "values", "Y", Diagnosis(module="blocks.1.attn"))
    lines = summary_lines(report(around, inside))
    assert lines[:2] == ["different at values in logits: logits is 3 times further away", "  begins in blocks.1.attn"]
    assert "different at drop-in in interface.attributes: interface is 3 times further away" in lines
    assert "  smallest case: X" in lines


def test_no_more_than_three_blocks_are_shown() -> None:
    some = [result(f"check{at}", "values", f"C{at}", Diagnosis()) for at in range(5)]
    assert summary_lines(report(*some))[-1] == "and 2 more below"


def test_shortened_checks_and_runs_without_a_difference_have_no_lines() -> None:
    assert summary_lines(report(replace(result("output", "values", "X", Diagnosis()), shortened=True))) == []
    assert summary_lines(report(CheckResult("output", "equivalent", 3))) == []


def test_a_case_is_said_in_words() -> None:
    fields = FIELDS | {
        "training": True,
        "attn_pdrop": 0.1,
        "kv_len": 9,
        "n_head": 4,
        "kv_heads": 2,
        "value_size": 3,
        "is_causal": False,
        "mask": "some",
        "scale": 0.0,
        "n_layer": 2,
        "layout": "strided",
        "regime": "tiny",
    }
    assert case_in_words(fields) == (
        "train, float32, attention dropout 0.1, one sample, 6 positions, 9 keys, 4 heads of size 1, two key heads, values of "
        "size 3, not causal, mask some, scale 0, two layers, strided in memory, values tiny"
    )
    assert case_in_words({}) == ""
