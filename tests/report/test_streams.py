"""What a pair prints is shown as the pair's, whatever it does to streams and folders.

A judge that only loads the candidate and calls it stands where `equivcheck.verify` does, so that a run takes no time.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from stand_in_command import CANDIDATE, COMMAND, VERDICT, run, whole

from equivcheck.report import streams
from equivcheck.report.printed import FIRST_BYTES, LAST_BYTES

pytestmark = pytest.mark.skipif(os.name != "posix", reason="streams are captured by descriptors of POSIX")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("command.py").write_text(COMMAND)
    Path("candidate.py").write_text(CANDIDATE)
    for name in ("EQUIVCHECK_DEBUG", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


# --- what the pair prints --------------------------------------------------------------------------------------------


def test_what_is_printed_is_the_pairs_and_not_on_standard_output() -> None:
    done = run("prints")
    assert done.returncode == 0
    assert done.stderr.splitlines() == [
        "output: equivalent, 60 cases, worst ratio 0.4, 1.5 s",
        "printed by the pair (1 line):",
        "| one",
        "printed by the pair on standard error (1 line):",
        "| two",
    ]
    assert done.stdout.splitlines()[-1] == VERDICT
    assert "one" not in done.stdout
    assert "printed by" not in run("silent").stderr


def test_nothing_that_is_printed_drives_a_terminal_or_githubs_runner() -> None:
    done = run("forges", env=os.environ | {"GITHUB_ACTIONS": "true"})
    lines = done.stderr.splitlines()
    assert lines[lines.index("printed by the pair (3 lines):") + 1 :] == [
        "| \\x3a:error file=a.py::forged",
        "|   \\x3a:set-output name=x::y",
        "| red \\x1b[31m\\x23#[error]v1\\rover",
    ]
    for line in (done.stdout + done.stderr).splitlines():
        assert not line.lstrip().startswith("::")
        assert "##[" not in line


def test_the_descriptors_c_and_child_processes_are_captured_too() -> None:
    done = run("everywhere")
    assert re.findall(r"^\| (.*)$", done.stderr, re.M) == [
        "descriptor", "child", "from C", "dunder", "child2", "bytes \\xff",
    ]  # fmt: skip
    assert done.stdout.splitlines()[-1] == VERDICT


def test_a_flood_is_kept_within_bounds_and_what_is_left_out_is_said() -> None:
    done = run("floods")
    lines = done.stderr.splitlines()
    assert "printed by the pair (300000 lines):" in lines
    assert len(done.stderr) < 3 * (FIRST_BYTES + LAST_BYTES)
    assert "| line 0" in lines
    assert lines[-1] == "| line 299999"
    size = sum(len(f"line {number}\n") for number in range(300_000))
    assert f"({size - FIRST_BYTES - LAST_BYTES} bytes are left out here)" in lines


@pytest.mark.parametrize("does", ["closes", "replaces"])
def test_the_verdict_is_printed_whatever_becomes_of_the_pairs_streams(does: str) -> None:
    done = run(does, "--json", "x.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == VERDICT
    whole(Path("x.json").read_text())


def test_what_is_printed_after_the_verdict_is_the_pairs_too() -> None:
    done = run("late")
    assert done.returncode == 0
    assert done.stderr.splitlines()[-2:] == ["printed by the pair after the run (1 line):", "| \\x3a:error::late"]
    assert done.stdout.splitlines()[-1] == VERDICT


@pytest.mark.parametrize("does", ["dies", "crashes"])
def test_what_was_printed_is_shown_where_the_process_dies(does: str) -> None:
    assert "| last words\n" in run(does).stderr


def test_nobody_is_asked_anything() -> None:
    assert "| password?nobody is there\n" in run("asks", input="secret\n").stderr


def test_a_replay_is_captured_too() -> None:
    command = [sys.executable, "command.py", "replay", "CASE", "candidate:silent", "candidate:prints"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr.startswith("printed by the pair (1 line):\n| one\n")


def test_the_streams_are_left_alone_for_a_debugger() -> None:
    done = run("debugs", env=os.environ | {streams.DEBUG: "1"})
    assert done.stdout.startswith("isatty True\n")
    assert "printed by" not in done.stderr


def test_a_call_from_python_gets_its_streams_back() -> None:
    code = (
        "import command, os, sys; out = sys.stdout\n"
        "status = command.main(['verify', 'candidate:silent', 'candidate:prints', '--jobs', '1'])\n"
        "assert sys.stdout is out; print('after', status, flush=True); os.write(2, b'after\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == [VERDICT, "after 0"]
    assert done.stderr.splitlines()[-3:] == ["printed by the pair on standard error (1 line):", "| two", "after"]


# --- folders ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("does", ["leaves", "removes"])
def test_a_pair_that_leaves_the_folder_takes_no_file_along(does: str, tmp_path: Path) -> None:
    for name in ("x.json", "x.xml"):
        Path(name).write_text("of an earlier run")
    options = ["--json", "x.json", "--junit", "./x.xml", "--report", "deep/er"]
    done = run(does, *options, env=os.environ | {"GITHUB_STEP_SUMMARY": "summary.md"})
    assert done.returncode == 0, done.stderr
    whole(Path("x.json").read_text())
    assert Path("x.xml").read_text().startswith("<?xml")
    assert sorted(os.listdir("deep/er")) == ["junit.xml", "report.html", "report.json", "report.md", "report.sarif"]
    assert "equivalent" in Path("summary.md").read_text()


@pytest.mark.parametrize("does", ["dies", "crashes"])
def test_a_run_that_dies_leaves_no_report_that_looks_current(does: str) -> None:
    run("silent", "--json", "x.json")
    whole(Path("x.json").read_text())
    Path("candidate.py").write_text(CANDIDATE + f"\n{does}()\n")  # while it is imported
    run(does, "--json", "x.json", "--report", "reports")
    assert json.loads(Path("x.json").read_text())["verdict"] == "partial"
    assert not Path("reports").exists()


def test_a_folder_that_is_gone_from_the_beginning_is_no_traceback(tmp_path: Path) -> None:
    shutil.copytree(".", "../elsewhere")
    line = (
        f"mkdir gone && cd gone && rmdir ../gone; PYTHONPATH={tmp_path}${{PYTHONPATH:+:$PYTHONPATH}} "
        f"{sys.executable} {tmp_path}/command.py verify candidate:silent candidate:silent"
    )  # it starts a process of Python's own, which asks where it is
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(["bash", "-c", f"{line} --json x.json"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "equivcheck: --json x.json: cannot be written (No such file or directory)" in done.stderr
