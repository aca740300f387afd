"""Two nodes of a cluster on this machine: the report of a whole run, whatever becomes of one of them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from small_pair import PAIR

pytest.importorskip("ray", reason="ray is not installed")
pytestmark = pytest.mark.ray

WITH_ONE_THAT_HANGS = f"""{PAIR}
import time

def hangs_at_length(q, k, v):
    if q.size(-2) > 200:
        time.sleep(600)
    return fast(q, k, v)
"""
OPTIONS = "--kind function --device cpu --profile quick"
STARTED: "list[subprocess.Popen[str]]" = []


class Nodes:
    """A cluster of two nodes with one CPU each, of which the second can be killed."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        self._second = self._cluster.add_node(num_cpus=1)
        self.option = f"--workers=ray:{self._cluster.address}"

    def kill_the_second(self) -> None:
        self._cluster.remove_node(self._second, allow_graceful=False)

    def again(self) -> None:
        self._second = self._cluster.add_node(num_cpus=1)

    def close(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    nodes = Nodes()
    yield nodes
    nodes.close()


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "pair.py").write_text(WITH_ONE_THAT_HANGS)
    yield tmp_path
    for process in STARTED:
        process.kill()
        process.wait()
    STARTED.clear()


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "equivcheck", *words, *OPTIONS.split()]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    STARTED.append(process)
    return process


def verify(folder: Path, candidate: str, *more: str) -> tuple[int, dict[str, Any], str]:
    """The exit status, the report less what a clock has a part in, and standard error."""
    process = start(folder, "verify", "pair.py:slow", f"pair.py:{candidate}", "--json", "report.json", *more)
    _, err = process.communicate(timeout=900)
    return process.returncode, comparable(json.loads((folder / "report.json").read_text())), err


def comparable(report: dict[str, Any]) -> dict[str, Any]:
    """A report without times, and without the case that showed a fault: each shard looks for one of its cases."""
    for name in ("seconds", "created", "integrity"):
        report.pop(name, None)
    for result in report["results"]:
        del result["seconds"]
    del report["sensitivity"]["seconds"]
    report["sensitivity"]["caught_by"] = sorted(report["sensitivity"]["caught_by"])
    return report


def tasks() -> list[int]:
    """The commands that tasks of Ray are running now."""
    running = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"equivcheck.cli.tethered" in (process / "cmdline").read_bytes():
                running.append(int(process.name))
        except OSError:
            continue
    return running


def wait_for(count: int, seconds: float = 120.0) -> list[int]:
    until = time.monotonic() + seconds
    while len(running := tasks()) != count:
        assert time.monotonic() < until, running
        time.sleep(0.1)
    return running


@pytest.mark.parametrize(("candidate", "status"), [("fast", 0), ("wrong_from_three", 1)])
def test_two_nodes_make_the_report_of_one_run(folder: Path, nodes: Nodes, candidate: str, status: int) -> None:
    on_ray = verify(folder, candidate, "--check=output", nodes.option)
    whole = verify(folder, candidate, "--check=output", "--all", "--jobs=2")
    assert on_ray[0] == whole[0] == status
    assert on_ray[1] == whole[1]
    assert "(2 of 2 parts are done)" in on_ray[2]


def test_a_killed_node_loses_no_verdict(folder: Path, nodes: Nodes) -> None:
    words = ("verify", "pair.py:slow", "pair.py:fast", "--check=output", "--json=report.json", nodes.option)
    process = start(folder, *words)
    wait_for(2)
    time.sleep(4.0)
    nodes.kill_the_second()
    try:
        wait_for(1, 20.0)  # that of the killed node ends with it
        _, err = process.communicate(timeout=900)
    finally:
        nodes.again()
    assert (process.returncode, "2 of 2 parts are done" in err) == (0, True), err
    report = comparable(json.loads((folder / "report.json").read_text()))
    assert report == verify(folder, "fast", "--check=output", "--all", "--jobs=1")[1]


def test_a_candidate_that_hangs_costs_one_case(folder: Path, nodes: Nodes) -> None:
    words = ("--check=output", "--case-seconds=2")
    status, report, _ = verify(folder, "hangs_at_length", *words, nodes.option)
    assert status == 1
    (result,) = report["results"]
    assert result["outcome"] == "different"
    case = result["counterexample"]["case"]
    assert int(case.split("-")[1].removeprefix("T")) > 200
    assert result["counterexample"]["message"].startswith("the candidate did not answer within 2 s")


def test_an_interruption_leaves_a_partial_report_and_no_process(folder: Path, nodes: Nodes) -> None:
    words = ("verify", "pair.py:slow", "pair.py:fast", "--check=output", "--json=report.json", nodes.option)
    process = start(folder, *words)
    wait_for(2)
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    assert out.splitlines()[-1].startswith("partial")
    assert not (folder / "report.json").exists() or not json.loads((folder / "report.json").read_text())["complete"]
    wait_for(0, 20.0)


def test_a_part_that_ray_gives_up_is_lost(folder: Path, nodes: Nodes) -> None:
    """The worker of one part is killed each time that Ray has started it again."""
    words = ("verify", "pair.py:slow", "pair.py:fast", "--check=output", "--json=report.json", nodes.option)
    process = start(folder, *words)
    for _ in range(4):
        of_part = wait_for_part(b"--shard=2/2")
        parent = int(Path(f"/proc/{of_part}/stat").read_text().rpartition(")")[2].split()[1])
        os.kill(parent, signal.SIGKILL)
        while of_part in tasks():
            time.sleep(0.05)
    out, err = process.communicate(timeout=600)
    assert process.returncode == 2, err
    assert out.splitlines()[-1].startswith("partial")
    assert err.splitlines()[-1].startswith("shard 2/2 has no report: Ray gave it up: WorkerCrashedError")


def wait_for_part(word: bytes, seconds: float = 120.0) -> int:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        for process in tasks():
            with suppress(OSError):
                if word in Path(f"/proc/{process}/cmdline").read_bytes():
                    return process
        time.sleep(0.1)
    raise AssertionError(f"no task has {word!r}")


def test_candidates_are_judged_as_without_it(folder: Path, nodes: Nodes) -> None:
    def judged(*more: str) -> tuple[int, dict[str, tuple[Any, ...]]]:
        words = ("judge", "pair.py:slow", "pair.py:fast", "pair.py:wrong_from_three", "pair.py:absent")
        process = start(folder, *words, "--check=output", "--timing-seconds=1", "--json=judged.json", *more)
        process.communicate(timeout=900)
        entries = json.loads((folder / "judged.json").read_text())["candidates"]
        same = ("rank", "verdict", "exit_reason", "checks", "levels", "differences", "problem")
        return process.returncode, {one["given"]: tuple(one.get(name) for name in same) for one in entries}

    on_ray = judged(nodes.option, "--jobs=1")
    assert on_ray[1]["pair.py:fast"][:2] == (1, "equivalent")
    assert on_ray == judged("--jobs=1")


def test_no_cluster_is_one_line(folder: Path) -> None:
    process = start(folder, "verify", "pair.py:slow", "pair.py:fast", "--workers=ray:127.0.0.1:1")
    assert process.communicate(timeout=300)[1].splitlines()[-1].startswith("equivcheck: --workers ray:127.0.0.1:1: ")
    assert process.returncode == 2
    assert os.listdir(folder) == ["pair.py"]
