"""What a pair prints is shown as the pair's, whatever it does to streams and folders; what cannot be written ends with 2.

A judge that only loads the candidate and calls it stands where `equivcheck.verify` does, so that a run takes no time.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from equivcheck.report import streams
from equivcheck.report.clean_text import clean
from equivcheck.report.printed import FIRST_BYTES, LAST_BYTES, Excerpt, shown
from equivcheck.report.text_stream import Stream, put

pytestmark = pytest.mark.skipif(os.name != "posix", reason="streams are captured by descriptors of POSIX")

COMMAND = """
import importlib, sys
from dataclasses import replace
from equivcheck.report import streams
from equivcheck.report.model import CheckResult, Report, Sensitivity
from equivcheck.runtime import working_folder
from equivcheck.supervisor import api, nurseries

def verify(pair, request, **options):
    return replay(pair, None, **options)

def replay(pair, case, **options):
    # in this process, as `bench` has it
    with streams.captured(), working_folder.preserved():
        return of_a_pair(pair.reference, pair.candidate, case, **options)

def of_a_pair(reference, candidate, case, *, listener=None, keep=None, **options):
    module, _, name = candidate.partition(":")
    loaded = getattr(importlib.import_module(module), name)
    result = CheckResult("output", "equivalent", 60, 1.5, 0.4)
    if case is not None:
        loaded()
        return (result,)
    report = Report(
        reference=reference, candidate=candidate, kind="module", device="cpu", profile="gate", seed=0, results=(result,),
        sensitivity=Sensitivity(("f",)), complete=True, seconds=1.0, created="2026-01-02T03:04:05+00:00",
    )
    if keep is not None:
        keep(replace(report, complete=False))
    loaded()
    listener.finished(result)
    return report

api.verify, api.replay = verify, replay
nurseries.start = lambda: None
from equivcheck.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
"""
CANDIDATE = r"""
import atexit, ctypes, os, sys, tempfile, threading

def silent(): pass
def prints(): print("one"); print("two", file=sys.stderr)
def forges(): print("::error file=a.py::forged\n  ::set-output name=x::y\nred \x1b[31m##[error]v1\rover")
def everywhere():
    os.write(1, b"descriptor\n"); os.system("echo child; echo child2 >&2"); ctypes.CDLL(None).puts(b"from C")
    sys.__stdout__.write("dunder\n"); sys.stderr.buffer.write(b"bytes \xff\n")
def floods():
    for number in range(300_000): print("line", number)
def late(): atexit.register(lambda: print("::error::late"))
def closes():
    print("before"); sys.stdout.close(); sys.stderr.close(); os.close(1); os.close(2)
def replaces(): sys.stdout = sys.stderr = None
def asks():
    try: input("password?")
    except EOFError: print("nobody is there")
def leaves(): os.chdir(tempfile.mkdtemp())
def removes():
    folder = tempfile.mkdtemp(); os.chdir(folder); os.rmdir(folder)
def dies(): print("last words"); sys.stdout.flush(); os._exit(7)
def crashes(): print("last words"); ctypes.string_at(0)
def debugs(): print("isatty", sys.stdout is sys.__stdout__)
"""
VERDICT = "equivalent: 60 cases, 1 check, cpu, 1 of 1 planted fault caught, 1.0 s"
NOT_WRITTEN = "cannot be written ({reason}); redirect it to a place that can be written to"


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("command.py").write_text(COMMAND)
    Path("candidate.py").write_text(CANDIDATE)
    for name in ("EQUIVCHECK_DEBUG", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


def run(does: str, *options: str, **given: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "command.py", "verify", "a:A", f"candidate:{does}", "--jobs", "1", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, **given)


def shell(line: str, does: str = "silent") -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which RUN is the command, and what it writes is kept apart from what bash does."""
    line = line.replace("RUN", f"{sys.executable} command.py verify a:A candidate:{does} --jobs 1")
    return subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)


def whole(text: str) -> dict[str, Any]:
    """The one report that `text` is."""
    report: dict[str, Any] = json.loads(text)
    assert report["complete"]
    assert report["verdict"] == "equivalent"
    return report


# --- what the pair prints --------------------------------------------------------------------------------------------


def test_what_is_printed_is_shown_as_the_pairs_and_never_on_standard_output() -> None:
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


@pytest.mark.parametrize("text", ["::error::x", " \t::error::x", "a\n ::warning::x", "a ##[error]x", "#::x\n##[x]"])
def test_no_text_of_a_strangers_is_a_command_to_githubs_runner(text: str) -> None:
    for line in clean(text).splitlines():
        assert not line.lstrip().startswith("::")
        assert "##[" not in line
    assert clean("x[::2] and a::b") == "x[::2] and a::b"


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


def test_an_excerpt_counts_lines_with_and_without_an_end() -> None:
    for pieces, heading in (([b"a\nb"], "x (2 lines):"), ([b"a", b"\n"], "x (1 line):"), ([b"\r\n\n"], "x (2 lines):")):
        excerpt = Excerpt()
        for piece in pieces:
            excerpt.add(piece)
        assert excerpt.section("x")[0] == heading
    assert shown(Excerpt(), Excerpt()) == ""


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
    command = [sys.executable, "command.py", "replay", "CASE", "a:A", "candidate:prints"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0
    assert done.stderr.startswith("printed by the pair (1 line):\n| one\n")


def test_the_streams_are_left_alone_for_a_debugger() -> None:
    done = run("debugs", env=os.environ | {streams.DEBUG: "1"})
    assert done.stdout.startswith("isatty True\n")
    assert "printed by" not in done.stderr


def test_a_call_from_python_gets_its_streams_back() -> None:
    code = (
        "import command, os, sys; out = sys.stdout; status = command.main(['verify', 'a:A', 'candidate:prints', '--jobs', '1'])\n"
        "assert sys.stdout is out; print('after', status, flush=True); os.write(2, b'after\\n')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-2:] == [VERDICT, "after 0"]
    assert done.stderr.splitlines()[-3:] == ["printed by the pair on standard error (1 line):", "| two", "after"]


# --- what cannot be written ------------------------------------------------------------------------------------------

LINUX = pytest.mark.skipif(not Path("/dev/full").exists(), reason="the full disk is Linux's /dev/full")
FULL, CLOSED = "No space left on device", "it is closed"


@LINUX
@pytest.mark.parametrize(
    ("redirected", "name", "reason"),
    [
        (">/dev/full", "standard output", FULL),
        (">&-", "standard output", CLOSED),
        ("2>/dev/full", "standard error", FULL),
        ("2>&-", "standard error", CLOSED),
    ],
)
def test_a_stream_that_cannot_be_written_is_said_on_the_other_and_ends_with_2(
    redirected: str, name: str, reason: str
) -> None:
    done = shell(f"RUN {redirected}")
    assert done.returncode == 2
    left = done.stderr if name == "standard output" else done.stdout
    assert left.splitlines()[-1] == f"equivcheck: {name}: {NOT_WRITTEN.format(reason=reason)}"
    assert VERDICT in left.splitlines()  # it is not lost with the place where it was wanted


@LINUX
@pytest.mark.parametrize("redirected", [">/dev/full 2>/dev/full", ">&- 2>&-", "<&- >&- 2>&-", ">/dev/full 2>&-"])
def test_where_no_stream_is_left_the_exit_status_is(redirected: str) -> None:
    done = shell(f"RUN --json x.json {redirected}", "prints")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")
    whole(Path("x.json").read_text())


@LINUX
@pytest.mark.parametrize("command", ["--help", "--version", "verify a:A"])
def test_so_is_what_only_informs(command: str) -> None:
    stream = "2" if command.startswith("verify") else ""
    done = shell(f"{sys.executable} command.py {command} {stream}>/dev/full")
    assert done.returncode == 2
    assert (done.stdout + done.stderr).splitlines()[-1].endswith(NOT_WRITTEN.format(reason=FULL))


@LINUX
def test_a_file_that_cannot_be_written_costs_the_file_and_not_the_verdict() -> None:
    done = run("silent", "--json", "/dev/full")
    assert done.returncode == 2
    assert done.stdout.splitlines()[-1] == VERDICT
    assert done.stderr.splitlines()[-1].startswith(f"equivcheck: --json /dev/full: cannot be written ({FULL})")


def test_a_reader_that_leaves_early_is_no_failure() -> None:
    for line in ("RUN | head -1", "RUN --json - | head -c1", "RUN 2>&1 | true"):
        done = shell(f"set -o pipefail; {line}")
        assert (done.returncode, "cannot" in done.stderr) == (0, False), done.stderr


# --- a report on a stream --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "through"),
    [
        ("-", ">out"),
        ("/dev/stdout", ">>out"),
        ("/dev/stdout", "| cat >out"),
        ("link", ">out"),
        ("/dev/fd/1", ">out"),
        ("out", ">out"),
    ],
)
def test_a_report_on_standard_output_is_whole_and_alone(place: str, through: str) -> None:
    os.symlink("/dev/stdout", "link")
    done = shell(f"RUN --json {place} {through}", "prints")
    assert done.returncode == 0, done.stderr
    whole(Path("out").read_text())
    assert done.stderr.splitlines()[-1] == VERDICT  # the table goes where it mixes with nothing
    assert not list(Path().glob(".equivcheck-*"))


def test_a_report_on_standard_error_is_whole_and_alone_too() -> None:
    done = run("prints", "--json", "/dev/stderr")
    whole(done.stderr)
    assert done.stdout.splitlines()[-1] == VERDICT
    assert "| one" in done.stdout


def test_two_reports_on_one_stream_are_refused() -> None:
    done = run("silent", "--json", "-", "--junit", "/dev/stdout")
    assert done.returncode == 2
    assert "--junit: --json writes to /dev/stdout too" in done.stderr


def test_two_reports_on_two_streams_leave_no_place_for_a_table() -> None:
    done = run("prints", "--json", "-", "--junit", "/dev/stderr")
    assert done.returncode == 0
    whole(done.stdout)
    assert done.stderr.startswith("<?xml")


@pytest.mark.parametrize("line", ["RUN --json >(cat >x)", "RUN --json /dev/fd/7 7>x", "RUN --json pipe"])
def test_a_pipe_or_another_descriptor_gets_the_report_once(line: str) -> None:
    os.mkfifo("pipe")
    received: list[str] = []
    reader = threading.Thread(target=lambda: received.append(Path("pipe").read_text()), daemon=True)
    if line.endswith("pipe"):
        reader.start()
    done = shell(f"{line}; status=$?; wait; exit $status")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == VERDICT
    if line.endswith("pipe"):
        reader.join()
        whole(received[0])
    elif "cat" not in line:  # bash does not wait for what it substitutes
        whole(Path("x").read_text())


@LINUX
def test_a_report_on_a_full_standard_output_is_said_by_its_option() -> None:
    done = shell("RUN --json /dev/stdout >/dev/full")
    assert done.returncode == 2
    assert [line for line in done.stderr.splitlines() if "cannot be" in line] == [
        f"equivcheck: --json /dev/stdout: cannot be written ({FULL}); give a place that can be written to"
    ]


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
    assert sorted(os.listdir("deep/er")) == ["junit.xml", "report.html", "report.json", "report.md"]
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
        f"{sys.executable} {tmp_path}/command.py verify a:A candidate:silent"
    )  # it starts a process of Python's own, which asks where it is
    done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    done = subprocess.run(["bash", "-c", f"{line} --json x.json"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "equivcheck: --json x.json: cannot be written (No such file or directory)" in done.stderr


# --- one stream ------------------------------------------------------------------------------------------------------


def test_a_stream_keeps_its_first_failure_and_raises_nothing() -> None:
    stream = Stream(None, "nothing")
    assert stream.write("x") == 1
    assert str(stream.failure) == "it is closed"
    with pytest.raises(OSError, match="it is closed"):
        put(stream, "x")
    with pytest.raises(TypeError):
        stream.write(b"x")  # type: ignore[arg-type]


def test_a_pipe_that_does_not_block_takes_all_of_a_long_text() -> None:
    out, into = os.pipe()
    os.set_blocking(into, False)
    text, received = "ä" * 300_000, bytearray()

    def read() -> None:
        while data := os.read(out, 65536):
            received.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    put(Stream(into, "pipe"), text)
    os.close(into)
    reader.join()
    os.close(out)
    assert received.decode() == text


# --- with workers ----------------------------------------------------------------------------------------------------

PRINTING = """
import os
from equivcheck.attention import FlashCausalSelfAttention

os.write(2, f"::error::imported from {os.getcwd()}\\n".encode())
os.chdir("/")

class Fast(FlashCausalSelfAttention):
    pass
"""


def test_workers_print_to_one_place_and_start_in_the_folder_of_the_run(tmp_path: Path) -> None:
    Path("fast.py").write_text(PRINTING)
    pair = ["equivcheck.attention:CausalSelfAttention", "fast.py:Fast"]
    command = ["verify", *pair, "--profile", "quick", "--check", "checkpoint", "--jobs", "2", "--json", "x.json"]
    done = subprocess.run([sys.executable, "-m", "equivcheck", *command], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "the candidate changes the working folder of the process to /" in done.stdout.splitlines()[-1]
    assert done.stderr.splitlines().count(f"| \\x3a:error::imported from {tmp_path.resolve()}") == 2
    report = json.loads(Path("x.json").read_text())
    assert report["candidate_file"] == "fast.py"
    assert "fast.py" in report["files"]["candidate"]
