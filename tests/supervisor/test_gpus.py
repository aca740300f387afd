"""Processes of a run take the GPUs of a machine in turn, whatever their number is."""

from collections import Counter
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivcheck.supervisor.gpus import Gpus, gpus_from
from equivcheck.supervisor.pool import Pool

VISIBLE = "CUDA_VISIBLE_DEVICES"


def words(alike: list[int], asked: str, environment: dict[str, str]) -> list[str]:
    devices: dict[str, Any] = {"device": "cuda:0", "alike": alike, "visible": VISIBLE}
    return list(gpus_from(devices, asked, environment).words)


@pytest.mark.parametrize(
    ("alike", "asked", "environment", "wanted"),
    [
        ([0, 1, 2], "cuda", {}, ["0", "1", "2"]),
        ([0, 1], "auto", {VISIBLE: "5, GPU-ab"}, ["5", "GPU-ab"]),
        ([0, 2], "cuda", {VISIBLE: "4,5,6"}, ["4", "6"]),
        ([0, 1, 2], "cuda", {VISIBLE: "4"}, []),
        ([0, 1, 2], "cuda:0", {}, []),
        ([1, 2], "cuda", {}, []),
        ([], "cuda", {}, []),
    ],
)
def test_gpus_of_one_model_are_shared_out_unless_one_is_named(
    alike: list[int], asked: str, environment: dict[str, str], wanted: list[str]
) -> None:
    assert words(alike, asked, environment) == wanted


@given(st.integers(2, 16), st.integers(0, 64))
def test_each_gpu_has_as_many_processes_as_another_or_one_less(gpus: int, processes: int) -> None:
    of = Gpus(VISIBLE, [str(number) for number in range(gpus)])
    taken: list[str] = []
    for number in range(processes):
        taken.append(of.least_used(taken))
        assert taken[-1] == str(number % gpus)
    counts = Counter(dict.fromkeys(of.words, 0)) + Counter(taken)
    assert max(counts.values(), default=0) - min((counts[word] for word in of.words), default=0) <= 1


def test_a_process_takes_the_gpu_of_one_that_has_ended() -> None:
    of = Gpus(VISIBLE, ["0", "1", "2"])
    assert of.least_used(["0", "2", "0", "1", "2"]) == "1"
    assert of.environment("1") == {VISIBLE: "1"}


def test_without_several_gpus_the_environment_stays_as_it_is() -> None:
    assert Gpus().least_used(["", ""]) == ""
    assert Gpus().environment("") == {}


def test_each_worker_of_a_pool_begins_with_one_gpu_in_its_environment() -> None:
    begun: list[dict[str, str]] = []

    class Nursery:
        dead = False
        workers: ClassVar[list[SimpleNamespace]] = []

        def start(self, hear: Any, first: dict[str, Any]) -> SimpleNamespace:
            begun.append(first["environment"])
            self.workers.append(SimpleNamespace(gpu=""))
            return self.workers[-1]

    pool = Pool(cast(Any, Nursery()), {"environment": {"HOME": "/h"}})
    pool.start()
    pool.gpus = Gpus(VISIBLE, ["0", "1"])
    cast(Any, Nursery.workers[0]).gpu = "0"  # as the first one, which has said how many there are
    for _ in range(3):
        pool.start()
    home = {"HOME": "/h"}
    assert begun == [home, {**home, VISIBLE: "1"}, {**home, VISIBLE: "0"}, {**home, VISIBLE: "1"}]
