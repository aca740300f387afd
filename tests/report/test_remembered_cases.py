"""Remembered counterexamples in every form of a report: shown apart, and never green where one differs."""

import json
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from sample_reports import BROKEN, CASE, GRADIENTS, OUTPUT, report_of

from equivcheck.report import github, junit, markdown
from equivcheck.report.closing_lines import remembered_lines, verdict_line
from equivcheck.report.codec import dumps, loads
from equivcheck.report.model import CheckResult, Report
from equivcheck.report.page import sentence, view
from equivcheck.report.table import plain

MODES = CheckResult("modes", "different", 1, counterexample=BROKEN.counterexample, worst_case=CASE)
PASSES = replace(GRADIENTS, cases=1, notes=())
MISSED = report_of(OUTPUT, GRADIENTS, remembered=(MODES, PASSES))


def test_a_difference_that_no_check_has_decides_its_level_and_the_verdict() -> None:
    assert MISSED.verdict == "different"
    assert MISSED.levels["training"] == "different"
    assert MISSED.cases == report_of(OUTPUT, GRADIENTS).cases
    elsewhere = replace(MISSED, require=("values",))
    assert elsewhere.verdict == "equivalent"
    assert "training is different and not required (modes)" in verdict_line(elsewhere)


def test_every_form_shows_the_case_and_how_it_is_run_again() -> None:
    replay = "equivcheck replay"
    for text in (plain(MISSED), markdown.render(MISSED), junit.render(MISSED), "".join(github.annotations(MISSED))):
        assert replay in text
        assert CASE in text
    (shown,) = view(MISSED, {})["counterexamples"]  # type: ignore[misc]
    assert shown[0] == "modes (training)"
    assert "it differs in modes" in sentence(MISSED)
    assert verdict_line(MISSED).startswith("different at training: values is equivalent; modes on a remembered case, ")


def test_junit_fails_where_a_remembered_case_alone_differs() -> None:
    root = ET.fromstring(junit.render(MISSED))
    (failed,) = (case for case in root.iter("testcase") if case.find("failure") is not None)
    assert failed.get("name") == "modes on a remembered case"
    assert root.get("failures") == "1"


@pytest.mark.parametrize(
    ("outcomes", "line"),
    [
        (["different", "equivalent"], "2 remembered counterexamples: 1 differs, 1 passes now"),
        (["different", "different"], "2 remembered counterexamples: 2 differ"),
        (["equivalent"], "1 remembered counterexample: 1 passes now"),
        (["deviation", "not judged"], "2 remembered counterexamples: 1 is deviation, 1 is not judged"),
        (["unsupported"] * 2, "2 remembered counterexamples: 2 are unsupported"),
    ],
)
def test_one_line_counts_them(outcomes: list[str], line: str) -> None:
    report = report_of(OUTPUT, remembered=tuple(replace(OUTPUT, outcome=o) for o in outcomes))  # type: ignore[arg-type]
    assert remembered_lines(report) == [line]
    assert f"\n{line}\n" in plain(report)
    assert line in markdown.render(report)


@pytest.mark.parametrize("none", [None, ()])
def test_nothing_is_said_where_there_are_none(none: tuple[CheckResult, ...] | None) -> None:
    assert "remembered" not in plain(report_of(OUTPUT, remembered=none))


def test_a_saved_report_has_the_cases_and_whether_they_were_asked_for(tmp_path: Path) -> None:
    for report in (MISSED, replace(MISSED, remembered=()), replace(MISSED, remembered=None)):
        report.save(tmp_path / "x.json")
        assert Report.load(tmp_path / "x.json") == report


def test_a_report_of_before_is_read_as_one_without() -> None:
    from equivcheck.report.codec import _integrity

    content = json.loads(dumps(report_of(OUTPUT)))
    del content["remembered"], content["integrity"]
    content["integrity"] = _integrity(content)
    assert loads(json.dumps(content)) == report_of(OUTPUT)
