"""The planted faults of a run, each tried on the cases of every shard: one that some shard saw was noticed."""

from collections.abc import Mapping, Sequence
from typing import Any

from equivcheck.report.model import Sensitivity
from equivcheck.report.shard import Shard, ShardFault

__all__ = ["sensitivity_over"]


def sensitivity_over(
    shards: Sequence[Shard], judged: Mapping[str, Mapping[str, Any]], *, seconds: float
) -> Sensitivity:
    """The sensitivity of the union of the shards' cases.

    Args:
        shards: The shards, in their order.
        judged: Name of a check that judged something -> whether a case of it `failed`, among others.
        seconds: How long the shards took for it.
    """
    tries: dict[str, list[ShardFault]] = {}
    for shard in shards:
        for fault in shard.faults:
            tries.setdefault(fault.name, []).append(fault)
    caught_by: dict[str, str] = {}
    left_out: list[str] = []
    untried: list[str] = []
    planted: list[str] = []
    levels: dict[str, str] = {}
    for name, of_fault in tries.items():
        one = of_fault[0]
        if one.check not in judged:
            continue  # nothing that should see it was judged
        # a candidate that fails by itself shows nothing more with a fault around it
        if any(fault.left_out for fault in of_fault) or (one.of_candidate and judged[one.check]["failed"]):
            left_out.append(name)
            continue
        levels[name] = one.level
        if seen := next((fault.seen for fault in of_fault if fault.seen), ""):
            caught_by[name] = seen
        elif any(fault.seen is None for fault in of_fault) or not any(fault.decides for fault in of_fault):
            untried.append(name)
            continue
        elif any(fault.without_effect for fault in of_fault):
            left_out.append(name)
            continue
        planted.append(name)
    return Sensitivity(
        tuple(planted),
        tuple(name for name in planted if name not in caught_by),
        caught_by,
        seconds,
        without_effect=tuple(sorted(left_out)),
        untried=tuple(untried),
        levels=levels,
    )
