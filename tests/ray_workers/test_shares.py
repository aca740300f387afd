"""The share of a cluster that a task takes: as many tasks at once as its nodes have GPUs, or CPUs for a run."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from equivcheck.errors import UsageError
from equivcheck.supervisor.ray_shares import Share, resources, share_for, slots

NODES = st.lists(st.builds(Share, st.integers(0, 256), st.integers(0, 8)), min_size=1, max_size=6)


@pytest.mark.parametrize(
    ("nodes", "device", "jobs", "share", "count"),
    [
        ([(1, 0), (1, 0)], "auto", None, (1, 0), 2),
        ([(2, 0)], "auto", None, (2, 0), 1),
        ([(2, 0)], "cpu", 1, (1, 0), 2),
        ([(64, 0)], "auto", None, (8, 0), 8),
        ([(64, 0), (4, 0)], "auto", None, (4, 0), 17),
        ([(0, 0), (16, 0)], "auto", None, (8, 0), 2),
        ([(4, 0)], "auto", 32, (4, 0), 1),
        ([(128, 8)], "auto", None, (16, 1), 8),
        ([(128, 8)], "cuda", 4, (4, 1), 8),
        ([(128, 8)], "cpu", None, (8, 0), 16),
        ([(4, 8)], "cuda", None, (1, 1), 4),
        ([(32, 4), (32, 0)], "auto", None, (8, 1), 4),
    ],
)
def test_a_task_takes_one_gpu_or_the_cpus_of_a_run(
    nodes: list[tuple[int, int]], device: str, jobs: int | None, share: tuple[int, int], count: int
) -> None:
    cluster = [Share(*node) for node in nodes]
    assert share_for(cluster, device=device, jobs=jobs) == Share(*share)
    assert slots(cluster, Share(*share)) == count


@given(NODES, st.sampled_from(["auto", "cpu", "cuda"]), st.none() | st.integers(1, 64))
def test_a_task_fits_a_node_or_the_cluster_is_refused(nodes: list[Share], device: str, jobs: int | None) -> None:
    """A task that fits no node is one that Ray waits for without an end."""
    try:
        share = share_for(nodes, device=device, jobs=jobs)
    except UsageError:
        assert device == "cuda" or not any(node.cpus for node in nodes)
        return
    assert share.cpus >= 1
    assert slots(nodes, share) >= 1
    assert share.gpus == (device != "cpu" and any(node.gpus and node.cpus for node in nodes))


def test_a_node_that_is_lost_has_nothing() -> None:
    def node(alive: bool, **of: float) -> dict[str, Any]:
        return {"Alive": alive, "Resources": {"memory": 1e9, **of}}

    assert resources([node(True, CPU=4.0, GPU=1.0), node(False, CPU=8.0), node(True)]) == [Share(4, 1), Share(0)]
