"""What a command writes: files that are whole or not there, replays and saved reports."""

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest
from judged_reports import BROKEN, CASE, DIFFERENT, EQUIVALENT, OUTPUT, PARTIAL, Judge, the_line

from equivcheck.cli.main import main
from equivcheck.errors import UsageError
from equivcheck.report.model import CheckResult, Report
from equivcheck.report.outputs import FORMATS

pytestmark = pytest.mark.usefixtures("judge")


def no_folder(option: str) -> list[str]:
    return [option, "nowhere/report"]


def a_folder(option: str) -> list[str]:
    Path("taken").mkdir()
    return [option, "taken"]


def through_a_file(option: str) -> list[str]:
    Path("file").write_text("")
    return [option, "file/report"]


def too_long(option: str) -> list[str]:
    return [option, "n" * 300]


def unwritable(option: str) -> list[str]:
    return [option, "/proc/equivcheck"]  # nobody may make anything there, not even root


def read_only(option: str) -> list[str]:
    if os.geteuid() == 0:
        return unwritable(option)  # nothing is read-only to root
    Path("locked").mkdir(mode=0o500)
    return [option, "locked/report"]


@pytest.mark.skipif(sys.platform != "linux", reason="the unwritable place is Linux's /proc")
@pytest.mark.parametrize(
    ("option", "place"),
    [
        *product(
            ["--json", "--junit", "--sarif"], [no_folder, a_folder, through_a_file, too_long, unwritable, read_only]
        ),
        *product(["--report"], [through_a_file, too_long, unwritable, read_only]),
    ],
)
def test_an_output_that_cannot_be_written_is_refused_before_the_run(
    judge: Judge, capsys: pytest.CaptureFixture[str], option: str, place: Callable[[str], list[str]]
) -> None:
    options = place(option)
    before = sorted(Path().rglob("*"))
    assert main(["verify", *options]) == 2
    line = the_line(capsys)
    assert line.startswith(f"{option} {options[1]}: cannot be written (")
    assert not judge.calls
    assert sorted(Path().rglob("*")) == before


def test_two_outputs_in_one_place_are_refused_before_the_run(judge: Judge, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--json", "x", "--junit", "./x"]) == 2
    assert "--junit: --json writes to x too" in the_line(capsys)
    assert main(["verify", "--report", "d", "--json", "d/report.json"]) == 2
    assert "--json writes to d/report.json too" in the_line(capsys)
    assert not judge.calls


def test_a_run_that_could_not_judge_leaves_no_file(judge: Judge, capsys: pytest.CaptureFixture[str]) -> None:
    judge.answer = UsageError("cannot import 'a': ModuleNotFoundError:\nNo module named 'a'")
    assert main(["verify", "a:A", "b:B", "--json", "x.json", "--report", "deep/er", "--junit", "x.xml"]) == 2
    assert the_line(capsys) == "cannot import 'a': ModuleNotFoundError: No module named 'a'"
    assert list(Path().rglob("*")) == []
    Path("x.json").write_bytes(b"of an earlier run \xff")
    assert main(["verify", "a:A", "b:B", "--json", "x.json"]) == 2
    assert Path("x.json").read_bytes() == b"of an earlier run \xff"


@pytest.mark.parametrize("report", [EQUIVALENT, DIFFERENT, PARTIAL])
def test_all_files_are_written_whatever_the_verdict(judge: Judge, report: Report) -> None:
    judge.answer = report
    main(["verify", "--json", "x.json", "--junit", "x.xml", "--sarif", "x.sarif", "--report", "deep/er"])
    in_folder = {f"deep/er/{form.file}" for form in FORMATS if form.file}
    assert {"deep/er/junit.xml", "deep/er/report.html", "deep/er/report.json", "deep/er/report.md"} <= in_folder
    assert set(map(str, Path().rglob("*.*"))) == {*in_folder, "x.json", "x.xml", "x.sarif"}
    assert Report.load("x.json") == Report.load("deep/er/report.json") == report
    assert Path("x.xml").read_text() == Path("deep/er/junit.xml").read_text()
    assert Path("x.sarif").read_text() == Path("deep/er/report.sarif").read_text()


def test_a_disk_that_fills_up_costs_the_file_and_not_the_verdict(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert main(["verify", "--json", "x.json"]) == 2
    streams = capsys.readouterr()
    assert streams.out.splitlines()[-1].startswith("equivalent: ")
    assert "--json x.json: cannot be written (No space left on device)" in streams.err
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    ("results", "status", "verdict"),
    [
        ((OUTPUT,), 0, "equivalent: 1 check"),
        ((OUTPUT, BROKEN), 1, "different: output"),
        ((replace(OUTPUT, outcome="unsupported"),), 2, "unsupported: nothing could be judged"),
        ((), 2, "unsupported: nothing could be judged"),
    ],
)
def test_a_replay_shows_the_detail_and_ends_in_the_verdict_on_the_case(
    judge: Judge, capsys: pytest.CaptureFixture[str], results: tuple[CheckResult, ...], status: int, verdict: str
) -> None:
    judge.answer = tuple(replace(result, detail="error 1e-7, budget 2e-7") for result in results)
    assert main(["replay", CASE, "a:A", "b:B", "--check", "output", "--kind", "module"]) == status
    options = {"kind": "module", "device": "auto", "checks": ("output",), "require_backend": ()}
    options |= {"case_seconds": None, "setup": None, "max_memory_ratio": None}
    assert judge.calls == [(("a:A", "b:B", CASE), options)]
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith(verdict)
    assert out.count("  error 1e-7, budget 2e-7\n") == len(results)


@pytest.mark.parametrize(
    ("form", "first"),
    [
        ("table", "b:B against a:A"),
        ("markdown", "# equivcheck: different"),
        ("html", "<!doctype html>"),
        ("junit", "<?xml"),
        ("sarif", '{\n  "$schema"'),
    ],
)
def test_a_saved_report_is_rendered_again(capsys: pytest.CaptureFixture[str], form: str, first: str) -> None:
    DIFFERENT.save("x.json")
    assert main(["report", "x.json", "--format", form]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(first)
    assert main(["report", "x.json", "--format", form, "--out", "rendered"]) == 0
    assert Path("rendered").read_text() == shown
    assert capsys.readouterr().out == ""


def test_a_report_is_not_rendered_where_it_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    DIFFERENT.save("x.json")
    assert main(["report", "x.json", "--out", "nowhere/x"]) == 2
    assert the_line(capsys).startswith("--out nowhere/x: cannot be written (there is no folder nowhere)")
