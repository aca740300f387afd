"""The command of a task: it runs as the caller would run it, and ends with the process that started it."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from equivcheck.supervisor.ray_task import cores_of_run, environment_of, run_command


def test_the_environment_is_the_callers_where_a_verdict_can_depend_on_it() -> None:
    node = {
        "PATH": "/of/node",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "3",
        "RAY_ADDRESS": "x",
        "PYTHONPATH": "r",
    }
    node |= {"GITHUB_STEP_SUMMARY": "s", "TORCH_LOGS": "all"}
    caller = {
        "PATH": "/of/caller",
        "PYTHONPATH": "/src",
        "CUDA_VISIBLE_DEVICES": "0",
        "OMP_NUM_THREADS": "4",
        "TOKEN": "t",
    }
    caller |= {"EQUIVCHECK_DEBUG": "1", "NVIDIA_TF32_OVERRIDE": "0"}
    wanted = {"PATH": "/of/node", "CUDA_VISIBLE_DEVICES": "3", "PYTHONPATH": "/src", "OMP_NUM_THREADS": "4"}
    wanted |= {"NVIDIA_TF32_OVERRIDE": "0", "EQUIVCHECK_CORES": "2"}
    assert environment_of(node, caller, 2) == wanted


@pytest.mark.parametrize(("text", "cores"), [("3", 3), ("", None), ("0", None), ("-1", None), ("many", None)])
def test_a_run_counts_with_the_cores_of_its_task(monkeypatch: pytest.MonkeyPatch, text: str, cores: int | None) -> None:
    monkeypatch.setenv("EQUIVCHECK_CORES", text)
    assert cores_of_run() == (cores or os.cpu_count())


def test_a_command_answers_with_its_output_or_with_its_last_line(tmp_path: Path) -> None:
    caller = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    answer = json.loads(run_command(["checks", "--kind", "function", "--format", "json"], str(tmp_path), caller, 1))
    assert (answer["status"], answer["reason"]) == (0, "")
    assert "output" in [check["name"] for check in json.loads(answer["out"])]
    answer = json.loads(run_command(["verify", "--check", "outputs"], str(tmp_path), caller, 1))
    assert (answer["status"], answer["out"]) == (2, "")
    assert answer["reason"].startswith("unknown check 'outputs'")


def test_a_folder_that_a_node_does_not_have_is_named(tmp_path: Path) -> None:
    answer = json.loads(run_command(["checks"], str(tmp_path / "gone"), {}, 1))
    assert (answer["status"], answer["out"]) == (2, "")
    assert f"there is no folder {tmp_path / 'gone'} on " in answer["reason"]


def test_a_command_ends_with_the_process_that_started_it() -> None:
    """Also if that one is killed, and has no time to end it."""
    line = (
        "import os, subprocess, sys, time\n"
        "reads, writes = os.pipe()\n"
        "waits = 'from equivcheck.cli.tethered import tether; import time; tether(); print(1, flush=True); time.sleep(600)'\n"
        "child = subprocess.Popen([sys.executable, '-c', waits], stdin=reads, stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", line], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert is_alive(child)
    parent.kill()
    parent.communicate()
    until = time.monotonic() + 20
    while is_alive(child):
        assert time.monotonic() < until
        time.sleep(0.05)


def is_alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
