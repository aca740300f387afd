"""The study of a long run's memory: which growth it sees, and which processes it takes for workers."""

import os
import runpy
from pathlib import Path
from typing import Any

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "steady_memory.py"


@pytest.fixture(scope="module")
def study() -> Any:
    return type("Study", (), runpy.run_path(str(FILE)))


def growths(study: Any, *samples: tuple[float, int, int]) -> list[float]:
    return [row.growth for row in study.peaks([study.Sample(*sample) for sample in samples], 300.0)]


def test_each_worker_is_compared_with_its_first_minutes(study: Any) -> None:
    rows = growths(study, (1, 7, 100), (2, 8, 400), (299, 7, 80), (301, 7, 130), (301, 8, 400), (400, 7, 90))
    assert rows == pytest.approx([0.3, 0.0])


def test_a_worker_that_began_later_is_compared_with_the_largest(study: Any) -> None:
    assert growths(study, (1, 7, 100), (2, 8, 400), (500, 9, 500)) == pytest.approx([0.25])


def test_a_run_that_ended_early_says_nothing(study: Any) -> None:
    assert growths(study, (1, 7, 100), (2, 8, 400)) == []
    assert growths(study, (301, 7, 100)) == []


def test_the_table_marks_what_grows(study: Any) -> None:
    rows = [study.Peaks(7, 1.0, 900.0, 100 * 2**20, 119 * 2**20), study.Peaks(8, 1.0, 900.0, 100 * 2**20, 121 * 2**20)]
    *_, flat, growing = study.page(rows, 300.0, 0.2).splitlines()
    assert flat == "| 0 | 1 | 900 | 100 | 119 | +19.0 % |"
    assert growing == "| 1 | 1 | 900 | 100 | 121 | +21.0 % **grows** |"


def test_workers_are_the_children_of_the_nursery(study: Any) -> None:
    parents = {2: 1, 3: 2, 4: 2, 5: 4, 6: 1}
    assert study.children(parents, study.children(parents, [1])) == [3, 4]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="there is no /proc")
def test_memory_is_read_of_a_process_that_lives(study: Any) -> None:
    assert study.resident_now(os.getpid()) > 0
    assert study.resident_now(0) == 0
    assert study.parents_now()[os.getpid()] == os.getppid()
