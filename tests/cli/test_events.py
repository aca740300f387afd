"""`verify --format jsonl`: one line of JSON for each event, nothing else on standard output, and a verdict at the end."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from judged_reports import BROKEN, CASE, DIFFERENT, EQUIVALENT, INSENSITIVE, PARTIAL, Judge, the_line
from quick_runs import CANDIDATE, REFERENCE, WRONG

from equivcheck.cli.main import main
from equivcheck.errors import ToolError, UsageError
from equivcheck.report.model import Report

usual = pytest.mark.usefixtures("judge")


def events(text: str) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=pytest.fail) for line in text.splitlines()]


@usual
@pytest.mark.parametrize(
    ("report", "status", "reason"),
    [
        (EQUIVALENT, 0, "equivalent"),
        (DIFFERENT, 1, "different"),
        (INSENSITIVE, 1, "fault-survived"),
        (PARTIAL, 2, "cut-short"),
        (replace(EQUIVALENT, results=()), 2, "cut-short"),
    ],
)
def test_the_last_event_is_the_verdict_with_the_exit_status(
    judge: Judge, capsys: pytest.CaptureFixture[str], report: Report, status: int, reason: str
) -> None:
    judge.answer = report
    assert main(["verify", "--format", "jsonl"]) == status
    *_, sensitivity, verdict = events(capsys.readouterr().out)
    assert sensitivity["event"] == "sensitivity"
    assert verdict["event"] == "verdict"
    assert (verdict["verdict"], verdict["exit_status"], verdict["exit_reason"]) == (report.verdict, status, reason)
    assert verdict["levels"] == report.levels


@usual
def test_a_run_begins_with_its_pair_and_has_a_result_for_each_check(
    judge: Judge, capsys: pytest.CaptureFixture[str]
) -> None:
    judge.answer = DIFFERENT
    main(["verify", "a:A", "b:B", "--format", "jsonl", "--profile", "quick", "--seed", "3"])
    started, result, *_ = events(capsys.readouterr().out)
    assert started["event"] == "started"
    assert (started["reference"], started["candidate"]) == ("a:A", "b:B")
    assert (started["profile"], started["seed"]) == ("quick", 3)
    assert (result["event"], result["check"], result["outcome"]) == ("result", "output", "different")
    (difference,) = result["differences"]
    assert (difference["case"]["id"], difference["level"]) == (CASE, "values")


@usual
@pytest.mark.parametrize(
    ("raised", "reason"),
    [
        (UsageError("no such"), "unusable"),
        (KeyboardInterrupt(), "interrupted"),
        (ToolError("broken"), "internal"),
        (SystemExit(0), "unusable"),
    ],
)
def test_whatever_ends_a_run_its_last_line_is_a_verdict(
    judge: Judge, capsys: pytest.CaptureFixture[str], raised: BaseException, reason: str
) -> None:
    judge.answer = raised
    assert main(["verify", "--format", "jsonl"]) == 2
    out, err = capsys.readouterr()
    verdict = events(out)[-1]
    assert (verdict["event"], verdict["exit_status"], verdict["exit_reason"]) == ("verdict", 2, reason)
    assert err.strip().startswith("equivcheck: ")


@usual
def test_a_report_that_cannot_be_written_is_the_reason(
    judge: Judge, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = UsageError("--json out.json: cannot be written (a full disk)")
    monkeypatch.setattr("equivcheck.report.outputs.Outputs.write", lambda self, report: failure)
    assert main(["verify", "--format", "jsonl", "--json", "out.json"]) == 2
    verdict = events(capsys.readouterr().out)[-1]
    assert (verdict["verdict"], verdict["exit_status"]) == ("equivalent", 2)
    assert (verdict["exit_reason"], verdict["message"]) == ("unwritable", str(failure))


@usual
def test_events_and_a_report_on_standard_output_are_refused(judge: Judge, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--format", "jsonl", "--json", "-"]) == 2
    assert "--format jsonl writes to standard output" in the_line(capsys)
    assert not judge.calls


@usual
def test_the_text_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    main(["verify", "--format", "text"])
    text = capsys.readouterr().out
    main(["verify"])
    assert capsys.readouterr().out == text


def test_a_result_that_was_not_finished_is_written_before_the_verdict(
    judge: Judge, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "equivcheck.supervisor.api.verify", lambda *_, **__: replace(DIFFERENT, results=(BROKEN,), complete=False)
    )
    assert main(["verify", "--format", "jsonl"]) == 1
    names = [one["event"] for one in events(capsys.readouterr().out)]
    assert names == ["started", "result", "sensitivity", "verdict"]


def test_a_difference_is_an_event_before_its_check_is_done(tmp_path: Path) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    options = ["--profile", "quick", "--check", "output", "--device", "cpu", "--format", "jsonl", "--no-remembered"]
    command = [sys.executable, "-m", "equivcheck", "verify", REFERENCE, "wrong.py:Scaled", *options]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    names = [one["event"] for one in events(done.stdout)]
    assert names == ["started", "difference", "result", "sensitivity", "verdict"]
    assert done.returncode == events(done.stdout)[-1]["exit_status"] == 1


def test_a_reader_that_closes_the_pipe_does_not_end_the_run(tmp_path: Path) -> None:
    options = "--profile quick --check output --device cpu --format jsonl --no-remembered --json out.json"
    command = [sys.executable, "-m", "equivcheck", "verify", REFERENCE, CANDIDATE, *options.split()]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    assert json.loads(process.stdout.readline())["event"] == "started"
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 0
    assert "Traceback" not in errors
    assert Report.load(tmp_path / "out.json").verdict == "equivalent"
