"""A candidate or an original that dies, hangs or deceives: never exit status 0, a report that names the case, no process left.

The whole list is run by `benchmarks/hostile.py`; here are some of each kind.
"""

from pathlib import Path

import pytest

from hostile.attentions import ALL, CANDIDATES, ON_CUDA, ORIGINALS, Hostile
from hostile.running import run


@pytest.mark.parametrize("hostile", [h for h in ALL if h.short], ids=lambda h: h.name.replace(" ", "-"))
def test_a_hostile_side_is_never_equivalent_and_leaves_nothing_running(hostile: Hostile, tmp_path: Path) -> None:
    ran = run(hostile, tmp_path)
    assert not ran.faults(hostile), f"{ran.faults(hostile)}\n{ran.text}"


@pytest.mark.gpu
@pytest.mark.parametrize("hostile", ON_CUDA, ids=lambda h: h.name.replace(" ", "-"))
def test_a_lost_gpu_costs_one_case_and_the_checks_after_it_are_judged(hostile: Hostile, tmp_path: Path) -> None:
    ran = run(hostile, tmp_path, "--check", "interface", device="cuda")
    assert not ran.faults(hostile), f"{ran.faults(hostile)}\n{ran.text}"
    assert ran.report is not None
    outcomes = {result["name"]: result["outcome"] for result in ran.report["results"]}
    assert outcomes["output"] == "different"
    assert outcomes["interface"] == "equivalent"


def test_the_list_has_many_of_each_side() -> None:
    assert len(CANDIDATES) >= 24
    assert len(ORIGINALS) >= 8


def test_a_right_pair_of_the_same_files_is_equivalent(tmp_path: Path) -> None:
    ran = run(Hostile("right", statuses=(0,), report=False), tmp_path)
    assert ran.status == 0, ran.text
    assert ran.report is not None
    assert ran.report["verdict"] == "equivalent"
    assert ran.report["sealed"] is True
    assert not ran.left
