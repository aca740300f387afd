"""The share of a cluster that one task of Ray takes: how many CPUs and GPUs, and how many such tasks fit at once."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from equivcheck.errors import UsageError

__all__ = ["Share", "resources", "share_for", "slots"]

_MOST_CPUS, _MOST_CPUS_BESIDE_A_GPU = 8, 16  # more cores gain nothing for one run


@dataclass(frozen=True)
class Share:
    """The resources of one task; a whole GPU or none."""

    cpus: int
    gpus: int = 0


def resources(nodes: Iterable[Mapping[str, Any]]) -> list[Share]:
    """The CPUs and GPUs of the nodes that are alive, in the form that `ray.nodes` has."""
    of_each = [node.get("Resources", {}) for node in nodes if node.get("Alive")]
    return [Share(int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in of_each]


def share_for(nodes: Sequence[Share], *, device: str, jobs: int | None) -> Share:
    """The share of each task: one GPU where the run is on GPUs, else as many CPUs as one run can use.

    Args:
        nodes: What each node of the cluster has.
        device: The device that was asked for: `auto`, `cpu`, or one with GPUs.
        jobs: The processes of a run, if the user has said how many; a task takes no more than the smallest node has.

    Raises:
        UsageError: The cluster has no such device.
    """
    with_gpus = [node for node in nodes if node.gpus and node.cpus]
    if with_gpus and device != "cpu":
        least = min(node.cpus // node.gpus for node in with_gpus)
        return Share(max(1, min(least, jobs or _MOST_CPUS_BESIDE_A_GPU)), 1)
    if device not in ("auto", "cpu"):
        raise UsageError(f"--device {device} with --workers ray: the cluster has no GPU; give --device cpu, or add one")
    with_cpus = [node.cpus for node in nodes if node.cpus]
    if not with_cpus:
        raise UsageError("--workers ray: the cluster has no CPU for a task; start a node with --num-cpus 1 or more")
    return Share(min(*with_cpus, jobs or _MOST_CPUS))


def slots(nodes: Iterable[Share], share: Share) -> int:
    """How many tasks of this share run at once on these nodes."""
    return sum(
        min(node.cpus // share.cpus, node.gpus // share.gpus) if share.gpus else node.cpus // share.cpus
        for node in nodes
    )
