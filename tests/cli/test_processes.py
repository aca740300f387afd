"""The command in a process of its own: exit statuses, imports, signals, and pairs of the current folder."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from judged_reports import DIFFERENT, python

from equivcheck.report.model import Report

pytestmark = pytest.mark.usefixtures("judge")


def test_the_command_line_imports_nothing_heavy() -> None:
    code = (
        "import sys; from equivcheck.cli.main import main; main(['verify', 'a:A']); main(['--help']); "
        "sys.exit(', '.join({'torch', 'hypothesis', 'pytest', 'rich', 'jinja2', 'numpy'} & set(sys.modules)) or 0)"
    )
    done = python("-c", code)
    assert (done.returncode, len(done.stderr.splitlines())) == (0, 1), done.stderr


def test_the_module_is_the_command() -> None:
    done = python("-m", "equivcheck", "verify", "a:A")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("equivcheck: 'a:A' without a candidate")


def test_a_reader_that_leaves_early_does_not_change_the_exit_status() -> None:
    DIFFERENT.save("x.json")
    command = f"set -o pipefail; {sys.executable} -m equivcheck report x.json --format junit | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


CANDIDATES = """
from equivcheck.attention import FlashCausalSelfAttention

class Wrong(FlashCausalSelfAttention):
    def _heads(self, x):
        q, k, v = super()._heads(x)
        return 1.1 * q, k, v

class Telling(FlashCausalSelfAttention):
    def forward(self, x):
        open("under_way", "w").close()
        return super().forward(x)
"""


def test_the_pair_that_ships_is_equivalent() -> None:
    done = python("-m", "equivcheck", "verify", "--profile", "quick", "--check", "output", "--json", "x.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("equivalent: ")
    assert done.stderr.startswith("output: equivalent, ")
    assert Report.load("x.json").equivalent


def test_a_wrong_candidate_of_this_folder_is_different_and_replays() -> None:
    Path("mine.py").write_text(CANDIDATES)
    pair = ["equivcheck.attention:CausalSelfAttention", "mine:Wrong"]
    done = python("-m", "equivcheck", "verify", *pair, "--profile", "quick", "--check", "output", "--json", "x.json")
    assert done.returncode == 1, done.stderr
    assert done.stdout.splitlines()[-1].startswith("different at values: output")
    found = Report.load("x.json").results[0].counterexample
    assert found is not None
    assert f"    replay: {found.replay}\n" in done.stdout
    command = found.replay.split()
    assert command[0] == "equivcheck"
    again = python("-m", *command)
    assert again.returncode == 1, again.stderr
    of_run = ("fails where ", "largest: ")  # nothing is varied around a case that is replayed
    lines = [line for line in found.message.splitlines() if not line.strip().startswith(of_run)]
    assert all(f"  {line}".rstrip() in again.stdout for line in lines)
    assert again.stdout.splitlines()[-1].startswith("different: output")


def test_what_cannot_be_imported_is_refused_with_the_reason() -> None:
    Path("broken.py").write_text("import nothing_of_this_name")
    done = python("-m", "equivcheck", "verify", "broken:A", "broken:B")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "No module named 'nothing_of_this_name'" in done.stderr


def test_ctrl_c_ends_in_a_partial_report_that_says_so() -> None:
    Path("mine.py").write_text(CANDIDATES)
    pair = ["equivcheck.attention:CausalSelfAttention", "mine:Telling"]
    command = [sys.executable, "-m", "equivcheck", "verify", *pair, "--profile", "thorough", "--json", "x.json"]
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    ) as run:
        while run.poll() is None and not Path("under_way").exists():
            time.sleep(0.05)
        run.send_signal(signal.SIGINT)
        out, _ = run.communicate(timeout=60)
    assert run.returncode == 2
    assert out.splitlines()[-1].startswith("partial: the run was cut short and proves nothing")
    report = Report.load("x.json")
    assert (report.complete, report.verdict) == (False, "partial")
