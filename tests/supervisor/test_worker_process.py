"""How a worker ended, as the supervisor records it."""

import socket
from typing import Any

import pytest

from equivcheck.runtime.beacon import Beacon
from equivcheck.supervisor.deaths import death_of
from equivcheck.supervisor.pool import Pool
from equivcheck.supervisor.workers import Worker


@pytest.mark.parametrize("side", ["reference", "candidate", ""])
def test_a_lost_gpu_belongs_to_the_side_that_ran(side: str) -> None:
    ended: list[tuple[str, str]] = []

    class Nursery:
        def end(self, worker: Worker, why: str, description: str) -> None:
            ended.append((why, description))

    ours, theirs = socket.socketpair()
    worker = Worker(1, ours, Beacon(), lambda worker, message: None)
    asked = worker.ask("one", check="output", case="B1")
    pool: Any = object.__new__(Pool)
    pool.nursery = Nursery()
    pool._take(worker, {"lost": "cuda:0 is lost to this process", "side": side})
    worker.gone(3, *ended[0])
    theirs.close()
    assert ended == [("lost", "lost the GPU: cuda:0 is lost to this process")]
    assert asked.done
    assert death_of(asked).side == side
