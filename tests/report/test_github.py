"""What GitHub shows: a summary that it does not drop, annotations at the candidate's line, JUnit that others read."""

from dataclasses import replace
from pathlib import Path

import pytest
from junitparser import Failure, JUnitXml, Skipped
from sample_reports import BROKEN, CASE, FULL, GRADIENTS, MANY, OUTPUT, STRANGE, report_of

from equivcheck.report import github, junit, markdown
from equivcheck.report.model import Report, Sensitivity
from equivcheck.report.outputs import Outputs


def test_an_annotation_points_at_the_line_that_defines_the_candidate() -> None:
    assert github.annotations(FULL) == [
        "::error file=pkg/fast.py,line=12,title=equivcheck%3A gradients is different at values::"
        f"3 of 12 values differ%0Alargest: nan%0Areplay: equivcheck replay {CASE} a:A b:B"
    ]
    assert github.annotations(report_of(OUTPUT, GRADIENTS)) == []
    assert github.annotations(report_of(BROKEN))[0].startswith(
        "::error title=equivcheck%3A output is different at values::3 of"
    )


@pytest.mark.parametrize(
    "report", [report_of(OUTPUT, complete=False), report_of(OUTPUT, sensitivity=Sensitivity(("a",), ("a",)))]
)
def test_what_proves_nothing_is_an_annotation_too(report: Report) -> None:
    (line,) = github.annotations(report)
    assert line.startswith(f"::error title=equivcheck%3A {report.verdict}::{report.verdict}: ")


def test_no_name_begins_a_command_of_its_own() -> None:
    strange = replace(BROKEN, name="x::y,\n::warning::z%")
    (line,) = github.annotations(report_of(strange, candidate_file="a,b:c.py", candidate_line=1))
    assert line.startswith("::error file=a%2Cb%3Ac.py,line=1,title=equivcheck%3A x%3A%3Ay%2C%0A\\x3a%3Awarning")
    assert ["\n" in one for one in (line, *github.annotations(STRANGE))] == [False] * 3


def test_github_shows_ten_differences_at_most_and_the_verdict() -> None:
    shown = github.annotations(MANY)
    assert len(shown) == 10
    assert "::different at values: check-0, check-1" in shown[-1]


def test_the_summary_is_appended_where_the_step_wants_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "summary.md"
    place.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(place))
    assert Outputs().summary(FULL) is None
    assert place.read_text() == f"before\n{markdown.render(FULL)}\n"
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "no/where"))
    assert "cannot be written" in str(Outputs().summary(FULL))
    monkeypatch.delenv("GITHUB_STEP_SUMMARY")
    assert Outputs().summary(FULL) is None


def test_a_summary_that_github_would_drop_is_cut_and_says_so() -> None:
    long = report_of(*(replace(r, counterexample=replace(r.counterexample, message="ä" * 3000)) for r in MANY.results))  # type: ignore[type-var]
    page = github.summary(long)
    assert 990_000 < len(page.encode()) < 2**20
    assert "The rest is cut off" in page


@pytest.mark.parametrize("report", [FULL, STRANGE, MANY, report_of(OUTPUT, GRADIENTS), report_of(complete=False)])
def test_another_parser_reads_the_same_from_junit(report: Report) -> None:
    (suite,) = JUnitXml.fromstring(junit.render(report).encode())
    cases = list(suite)
    assert len(cases) >= len(report.results)
    for result, case in zip(report.results, cases, strict=False):
        properties = {p.name: p.value for p in case.child(_properties())}
        assert properties["outcome"] == result.outcome
        assert properties["seed"] == str(report.seed)
        assert float(properties.get("worst_ratio", "nan")) == pytest.approx(
            result.worst_ratio or float("nan"), nan_ok=True
        )
        kinds = {"different": [Failure], "unsupported": [Skipped]}.get(result.outcome, [])
        assert [type(found) for found in case.result] == kinds
    assert suite.failures == sum(r.outcome == "different" for r in report.results) + (report.verdict == "insensitive")
    assert (suite.failures + suite.errors == 0) is report.equivalent


def _properties() -> type:
    from junitparser import Properties

    return Properties
