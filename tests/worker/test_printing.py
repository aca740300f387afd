"""Workers print to one place, and start in the folder of the run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(os.name != "posix", reason="streams are captured by descriptors of POSIX")

PRINTING = """
import os
from equivcheck.attention import FlashCausalSelfAttention

os.write(2, f"::error::imported from {os.getcwd()}\\n".encode())
os.chdir("/")

class Fast(FlashCausalSelfAttention):
    pass
"""


def test_workers_print_to_one_place_and_start_in_the_folder_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_ACTIONS", raising=False)
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
