"""`--profile-run` says where the time went, after the verdict; a project can ask for it, and the command line wins."""

from dataclasses import replace
from pathlib import Path

import pytest
from judged_reports import DIFFERENT, EQUIVALENT, Judge, the_line

from equivcheck.cli.main import main
from equivcheck.report.model import Report
from equivcheck.report.time_spent import TimeSpent

SPENT = TimeSpent({"candidate": 3.0, "rest": 1.0}, {"output": {"candidate": 3.0}, "other": {"rest": 1.0}})


@pytest.mark.parametrize(
    ("config", "words", "wanted"),
    [
        ("", [], False),
        ("", ["--profile-run"], True),
        ("profile_run = true", [], True),
        ("profile_run = false", [], False),
        ("profile_run = false", ["--profile-run"], True),
        ("profile_run = true", ["--no-profile-run"], False),
    ],
)
def test_the_option_wins_over_the_project(judge: Judge, config: str, words: list[str], wanted: bool) -> None:
    Path("pyproject.toml").write_text(f"[tool.equivcheck]\n{config}\n")
    main(["verify", *words])
    assert judge.calls[0][1]["profile_run"] is wanted


@pytest.mark.usefixtures("judge")
def test_a_key_that_is_no_truth_value_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    Path("pyproject.toml").write_text("[tool.equivcheck]\nprofile_run = 'yes'\n")
    assert main(["verify"]) == 2
    assert the_line(capsys).endswith("profile_run = 'yes' was given, and true or false is allowed")


@pytest.mark.parametrize(("report", "status"), [(EQUIVALENT, 0), (DIFFERENT, 1)])
def test_the_table_stands_after_the_verdict(
    judge: Judge, capsys: pytest.CaptureFixture[str], report: Report, status: int
) -> None:
    judge.answer = replace(report, time_spent=SPENT)
    assert main(["verify", "--profile-run"]) == status
    *before, verdict, empty, title, candidate, rest, together, longest = capsys.readouterr().out.splitlines()
    assert verdict.startswith(report.verdict)
    assert (empty, title) == ("", "time spent, all processes  share  seconds")
    assert [line.split() for line in (candidate, rest, together)] == [
        ["candidate", "75", "%", "3.0"],
        ["rest", "25", "%", "1.0"],
        ["all", "100", "%", "4.0"],
    ]
    assert longest == "longest: output 3.0 s, other 1.0 s"
    assert not any("time spent" in line for line in before)
