"""SARIF: a result a difference at the candidate's line, and none where the verdict is green."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from sample_reports import BROKEN, CASE, EMPTY, FULL, GRADIENTS, MANY, OUTPUT, REPORTS, STRANGE, report_of

import equivcheck
from equivcheck.report import sarif
from equivcheck.report.exits import exit_status
from equivcheck.report.model import Counterexample, Finding, Report, Sensitivity
from equivcheck.report.shard import Shard

LEVELS = ("none", "note", "warning", "error")
SURVIVED = Sensitivity(("a", "b"), ("b",))
EXAMPLE = Counterexample(CASE, "lost", "equivcheck replay")


def run_of(report: Report) -> dict[str, Any]:
    """The one run of a report, in the structure that SARIF 2.1.0 demands."""
    content = json.loads(sarif.render(report))
    assert content["version"] == "2.1.0"
    assert "sarif-2.1.0" in content["$schema"]
    (run,) = content["runs"]
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("equivcheck", equivcheck.__version__)
    ids = [rule["id"] for rule in driver["rules"]]
    assert len(ids) == len(set(ids))
    assert all(rule[key]["text"] for rule in driver["rules"] for key in ("shortDescription", "fullDescription", "help"))
    for result in run["results"]:
        assert ids[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in LEVELS
        assert result["message"]["text"]
        assert all(isinstance(value, str) for value in result["partialFingerprints"].values())
        (location,) = result["locations"]
        assert location["logicalLocations"][0]["fullyQualifiedName"] == report.candidate or report in (STRANGE, EMPTY)
        if "physicalLocation" in location:
            assert not location["physicalLocation"]["artifactLocation"]["uri"].startswith(("/", "file:"))
    (invocation,) = run["invocations"]
    assert isinstance(invocation["executionSuccessful"], bool)
    assert invocation["exitCode"] == exit_status(report)
    assert isinstance(run, dict)
    return run


def test_a_difference_is_an_error_at_the_line_of_the_candidate() -> None:
    (result,) = run_of(FULL)["results"]
    assert (result["ruleId"], result["level"]) == ("gradients", "error")
    assert result["message"]["text"] == "3 of 12 values differ\nlargest: nan"
    assert result["locations"][0]["physicalLocation"] == {
        "artifactLocation": {"uri": "pkg/fast.py", "uriBaseId": "%SRCROOT%"},
        "region": {"startLine": 12},
    }
    assert result["partialFingerprints"] == {"equivcheckFinding/v1": "gradients@values"}
    assert result["properties"] == {
        "case": CASE,
        "ratio": "inf",
        "level": "values",
        "replay": f"equivcheck replay {CASE} a:A b:B",
    }


def test_a_finding_at_a_level_that_is_not_required_is_a_warning() -> None:
    lost = Finding("hooks", "drop-in", "different", EXAMPLE)
    interface = replace(
        OUTPUT, name="interface", outcome="different", findings=(lost,), levels={"drop-in": "different"}
    )
    run = run_of(report_of(OUTPUT, interface, require=("values",)))
    assert [(r["ruleId"], r["level"]) for r in run["results"]] == [("interface.hooks", "warning")]
    assert [rule["id"] for rule in run["tool"]["driver"]["rules"]] == ["output", "interface", "interface.hooks"]
    assert run["invocations"][0]["exitCode"] == 0
    run = run_of(report_of(OUTPUT, interface))
    assert [r["level"] for r in run["results"]] == ["error"]


@pytest.mark.parametrize(
    ("report", "rule", "level", "successful"),
    [
        (report_of(OUTPUT, sensitivity=SURVIVED), "fault-survived", "error", True),
        (report_of(OUTPUT, sensitivity=Sensitivity()), "no-fault-planted", "error", True),
        (report_of(OUTPUT, complete=False), "cut-short", "error", False),
        (EMPTY, "cut-short", "error", False),
        (report_of(replace(OUTPUT, outcome="not judged")), "nothing-compared", "error", True),
        (report_of(replace(OUTPUT, outcome="unsupported"), strict=True), "refused", "error", True),
        (report_of(replace(OUTPUT, outcome="not refuted"), profile="screen"), "not-refuted", "note", True),
        (report_of(replace(OUTPUT, outcome="not refuted"), shard=Shard(1, 2)), "shard", "note", True),
        (report_of(OUTPUT, findings=("the original was replaced",)), "void", "error", True),
        (report_of(replace(OUTPUT, outcome="different")), "different", "error", True),
    ],
)
def test_a_run_that_is_not_green_has_a_result_with_the_reason(
    report: Report, rule: str, level: str, successful: bool
) -> None:
    run = run_of(report)
    assert [(result["ruleId"], result["level"]) for result in run["results"]] == [(rule, level)]
    assert run["invocations"][0]["executionSuccessful"] is successful
    assert run["properties"]["exit_reason"] == rule


def test_an_equivalent_run_and_a_declared_difference_have_no_results() -> None:
    assert run_of(report_of(OUTPUT, GRADIENTS))["results"] == []
    assert run_of(report_of(OUTPUT, replace(BROKEN, name="gradients", outcome="deviation")))["results"] == []


def test_a_warning_does_not_hide_why_a_run_is_not_green() -> None:
    broken = replace(BROKEN, name="interface")
    run = run_of(report_of(OUTPUT, broken, require=("values",), sensitivity=SURVIVED))
    assert [(r["ruleId"], r["level"]) for r in run["results"]] == [
        ("interface", "warning"),
        ("fault-survived", "error"),
    ]
    assert "survived: b" in run["results"][1]["message"]["text"]


def test_a_difference_has_the_same_fingerprint_on_another_case() -> None:
    assert BROKEN.counterexample is not None
    other = replace(BROKEN, counterexample=replace(BROKEN.counterexample, case="B2", message="5 of 12 values differ"))
    one, two = (run_of(report_of(result))["results"][0] for result in (BROKEN, other))
    assert one["partialFingerprints"] == two["partialFingerprints"]
    assert one["message"] != two["message"]


def test_only_the_first_lines_of_a_long_message_are_shown() -> None:
    assert BROKEN.counterexample is not None
    long = "\n".join(f"line {number}" for number in range(50))
    example = replace(BROKEN.counterexample, message=long)
    (result,) = run_of(report_of(replace(BROKEN, counterexample=example)))["results"]
    assert result["message"]["text"] == "line 0\nline 1\nline 2\nline 3"


@pytest.mark.parametrize("file", ["src/my fast.py", "a:b.py", "../fast\x1b.py"])
def test_the_place_of_a_strange_file_is_a_relative_uri(file: str) -> None:
    (result,) = run_of(report_of(BROKEN, candidate_file=file, candidate_line=3))["results"]
    uri = result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    assert not {" ", ":", "\x1b"} & set(uri)


@pytest.mark.parametrize("report", [STRANGE, MANY])
def test_strange_and_many_differences_are_results_each(report: Report) -> None:
    run = run_of(report)
    assert len(run["results"]) == sum(result.outcome == "different" for result in report.results)


@given(REPORTS)
def test_no_report_that_is_not_green_is_without_a_result(report: Report) -> None:
    run = json.loads(sarif.render(report))["runs"][0]
    assert report.equivalent or {"error", "note"} & {result["level"] for result in run["results"]}
