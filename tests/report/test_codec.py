"""Reports as files: read back exactly, or refused in one line."""

import json as stdlib_json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from sample_reports import BROKEN, OUTPUT, REPORTS, report_of

from equivcheck.errors import ReportError, UsageError
from equivcheck.report import codec
from equivcheck.report.model import SCHEMA_VERSION, Report


@given(REPORTS)
def test_a_report_is_read_back_exactly(report: Report) -> None:
    assert codec.loads(codec.dumps(report)) == report


@given(REPORTS)
def test_the_text_of_a_report_is_strict_and_always_the_same(report: Report) -> None:
    text = codec.dumps(report)
    assert codec.dumps(codec.loads(text)) == text
    stdlib_json.loads(text, parse_constant=pytest.fail)


def test_nan_survives_the_file_and_the_file_says_so_in_words(tmp_path: Path) -> None:
    report_of(replace(OUTPUT, worst_ratio=math.nan)).save(tmp_path / "report.json")
    assert math.isnan(Report.load(tmp_path / "report.json").results[0].worst_ratio or 0.0)
    assert '"worst_ratio": "nan"' in (tmp_path / "report.json").read_text()


def test_readers_of_the_file_find_the_verdict_in_it() -> None:
    content = stdlib_json.loads(codec.dumps(report_of(BROKEN)))
    assert (content["verdict"], content["equivalent"], content["schema_version"]) == (
        "different",
        False,
        SCHEMA_VERSION,
    )


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"outcome": "different"', '"outcome": "equivalent"'),
        ('"verdict": "different"', '"verdict": "equivalent"'),
        ('"equivalent": false', '"equivalent": true'),
        ('"seed": 0', '"seed": 1'),
        ('"complete": true', '"complete": false'),
        ('"worst_ratio": "inf"', '"worst_ratio": 1e999'),
        ('"notes": []', '"notes": ["harmless"]'),
    ],
)
def test_an_edited_file_is_noticed(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "report.json"
    codec.write(report_of(BROKEN), path)
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ReportError, match="changed by hand"):
        codec.read(path)


def test_a_file_in_other_white_space_is_the_same_report() -> None:
    text = codec.dumps(report_of(BROKEN))
    assert codec.loads(stdlib_json.dumps(stdlib_json.loads(text))) == codec.loads(text.replace("\n", "\r\n"))


def test_a_file_that_is_cut_short_anywhere_is_refused() -> None:
    text = codec.dumps(report_of(BROKEN))
    for length in range(len(text) - 2):  # the closing brace, then a line feed
        with pytest.raises(ReportError, match="truncated, or not JSON"):
            codec.loads(text[:length])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "truncated, or not JSON"),
        ("[1, 2]", "not a report"),
        ('{"schema_version": 1}', "no integrity"),
        ('{"results": []}', "no schema_version"),
        ('{"schema_version": "1"}', "no schema_version"),
        ('{"schema_version": 999, "integrity": ""}', "upgrade equivcheck"),
        ('{"schema_version": 1, "schema_version": 2}', "twice"),
        ('{"schema_version": NaN}', "NaN"),
        ("[" * 100_000, "truncated, or not JSON"),
        ("\N{SNOWMAN}", "truncated, or not JSON"),
    ],
)
def test_a_file_that_is_no_report_is_refused_in_one_line(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ReportError, match=words) as caught:
        codec.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def signed(content: dict[str, object]) -> str:
    """A file with a hash that is right, as a forger or another version would write it."""
    content.pop("integrity", None)
    return stdlib_json.dumps({**content, "integrity": codec._integrity(content)})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"seed": "0"}, "'0' where int belongs"),
        ({"seed": True}, "True where int belongs"),
        ({"complete": 1}, "1 where bool belongs"),
        ({"seconds": "soon"}, "soon"),
        ({"results": {}}, "belongs"),
        ({"results": [[]]}, "belongs"),
        ({"results": [{"name": "output", "cases": 1}]}, "without outcome"),
        ({"results": [{"name": "output", "cases": 1, "outcome": "fine"}]}, "'fine' is not one of"),
        ({"mood": "good"}, "has no mood"),
    ],
)
def test_a_file_with_a_right_hash_and_wrong_content_is_refused(change: dict[str, object], words: str) -> None:
    content = {**stdlib_json.loads(codec.dumps(report_of(OUTPUT))), **change}
    with pytest.raises(ReportError, match=words):
        codec.loads(signed(content))


def test_a_missing_file_and_a_binary_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match="no such file"):
        Report.load(tmp_path / "nowhere.json")
    with pytest.raises(ReportError, match="cannot be read"):
        Report.load(tmp_path)
    (tmp_path / "model.pt").write_bytes(b"PK\x03\x04\xff\xfe")
    with pytest.raises(ReportError, match="not UTF-8"):
        Report.load(tmp_path / "model.pt")


def test_every_refusal_of_a_file_is_a_usage_error() -> None:
    assert issubclass(ReportError, UsageError)
