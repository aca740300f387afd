"""What cannot be written ends with 2, and a report on a stream is whole and alone."""

import os
import sys
import threading
from pathlib import Path

import pytest
from stand_in_command import CANDIDATE, COMMAND, NOT_WRITTEN, VERDICT, run, shell, whole

pytestmark = pytest.mark.skipif(os.name != "posix", reason="streams are captured by descriptors of POSIX")


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("command.py").write_text(COMMAND)
    Path("candidate.py").write_text(CANDIDATE)
    for name in ("EQUIVCHECK_DEBUG", "GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
        monkeypatch.delenv(name, raising=False)


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
def test_an_unwritable_stream_is_said_on_the_other_and_ends_with_2(redirected: str, name: str, reason: str) -> None:
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
