"""JUnit: a case per check, green where the verdict is."""

import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from sample_reports import BROKEN, CASE, GRADIENTS, OUTPUT, report_of

from equivcheck.report import junit
from equivcheck.report.model import Report, Sensitivity


@pytest.mark.parametrize(
    ("report", "counts"),
    [
        (report_of(OUTPUT, GRADIENTS), {"tests": "2", "failures": "0", "errors": "0", "skipped": "0"}),
        (report_of(BROKEN, GRADIENTS), {"tests": "2", "failures": "1", "errors": "0", "skipped": "0"}),
        (
            report_of(OUTPUT, replace(GRADIENTS, outcome="unsupported", unsupported=("all of float16",))),
            {"tests": "2", "failures": "0", "errors": "0", "skipped": "1"},
        ),
        (
            report_of(OUTPUT, sensitivity=Sensitivity(("a",), ("a",))),
            {"tests": "2", "failures": "1", "errors": "0", "skipped": "0"},
        ),
        (report_of(OUTPUT, complete=False), {"tests": "2", "failures": "0", "errors": "1", "skipped": "0"}),
        (report_of(), {"tests": "1", "failures": "0", "errors": "1", "skipped": "0"}),
    ],
)
def test_junit_has_a_case_per_check_and_is_green_where_the_verdict_is(report: Report, counts: dict[str, str]) -> None:
    suite = ET.fromstring(junit.render(report)).find("testsuite")
    assert suite is not None
    assert {key: suite.get(key) for key in counts} == counts
    assert (counts["failures"] == counts["errors"] == "0") is report.equivalent
    assert [case.get("name") for case in suite.iter("testcase")][: len(report.results)] == [
        result.name for result in report.results
    ]


def test_junit_carries_ratio_seed_and_replay() -> None:
    case = ET.fromstring(junit.render(report_of(BROKEN, seed=7))).find(".//testcase")
    assert case is not None
    properties = {element.get("name"): element.get("value") for element in case.iter("property")}
    assert properties["worst_ratio"] == "inf"
    assert properties["seed"] == "7"
    assert properties["replay"] == f"equivcheck replay {CASE} a:A b:B"
    failure = case.find("failure")
    assert failure is not None
    assert failure.get("message") == "3 of 12 values differ"
    assert "largest: nan" in (failure.text or "")
