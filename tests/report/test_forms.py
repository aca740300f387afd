"""Every form of a report: it can be made of each, says the same, and drives no terminal."""

import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from sample_reports import BROKEN, GRADIENTS, OUTPUT, REPORTS, report_of

from equivcheck.report import codec, junit, markdown, sarif, table
from equivcheck.report.model import Report
from equivcheck.report.outputs import FORMATS, Format, format_named


@given(REPORTS)
def test_every_form_can_be_made_of_every_report(report: Report) -> None:
    assert table.plain(report).splitlines()[-1] == table.verdict_line(report)
    ET.fromstring(junit.render(report))
    assert report.verdict in markdown.render(report)


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_every_form_in_the_table_is_there(form: Format) -> None:
    assert format_named(form.name) is form
    assert form.function()(report_of(OUTPUT)).endswith("\n")
    assert form.again or form.option
    assert bool(form.option) == bool(form.help)


@given(REPORTS)
def test_no_form_carries_characters_that_drive_a_terminal(report: Report) -> None:
    for text in (table.plain(report), junit.render(report), markdown.render(report), sarif.render(report)):
        assert not {"\x1b", "\x00", "\r", "\u202e", "\x9b"} & set(text)
        text.encode("utf-8")


def test_deviations_and_checks_out_of_time_are_in_every_text() -> None:
    wanted = replace(BROKEN, outcome="deviation", detail="declared: the mask is wider")
    late = replace(GRADIENTS, detail="out of time after 3 of 40 cases")
    report = report_of(wanted, late, device="cuda:0 (NVIDIA H200)")
    assert "deviations:\n  output: declared: the mask is wider\n" in table.plain(report)
    assert "  gradients: out of time after 3 of 40 cases\n  gradients: 2 zero gradients\n" in table.plain(report)
    assert "## Deviations\n\n- `output`: declared: the mask is wider\n" in markdown.render(report)
    assert "declared: the mask is wider" in junit.render(report)
    assert "cuda:0 (NVIDIA H200, torch 2.13.0)" in table.verdict_line(report)


@pytest.mark.parametrize("device", ["nvidia-h100", "nvidia-h200"])
def test_a_report_of_version_2_says_nothing_that_it_did_not_record(device: str) -> None:
    report = codec.read(Path(__file__).parents[2] / "reports" / device / "report.json")
    assert (report.schema_version, report.verdict) == (2, "equivalent")
    assert (report.dtypes, report.packages, report.not_covered) == ((), {}, ())
    assert "dtypes" not in table.evidence_line(report)
    assert "dtypes" not in markdown.render(report)


def test_what_the_evidence_does_not_cover_is_in_every_text() -> None:
    what = "what the network answered: 10.0.0.1"
    report = report_of(OUTPUT, not_covered=(what,), dtypes=("float32", "bfloat16"))
    assert f"not covered by the evidence:\n  {what}\n" in table.plain(report)
    assert f"## Not covered by the evidence\n\n- {what}\n" in markdown.render(report)
    assert what in junit.render(report)
    assert "dtypes float32 bfloat16, 60 cases, torch 2.13.0" in table.evidence_line(report)
