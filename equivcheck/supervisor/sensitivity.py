"""Whether a run would have noticed: faults are planted around the original, and tried on the cases of the run."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from equivcheck.report.model import Sensitivity
from equivcheck.report.shard import ShardFault
from equivcheck.supervisor.deaths import Lost
from equivcheck.supervisor.listener import Listener
from equivcheck.supervisor.workers_interface import Workers

__all__ = ["measure_sensitivity", "tried_on_shard"]

_PLANT_S = 300.0  # planting takes five on an idle machine, and took more than 120 on a slow one with other work


def measure_sensitivity(
    workers: Workers, ran: Mapping[str, Mapping[str, Any]], listener: Listener, *, run_began: float, run_until: float
) -> Sensitivity:
    """The planted faults that were detected, and those that survived.

    Args:
        workers: The processes that run the pair.
        ran: Name of a check -> the number of planned cases, the judged and failed cases, and whether one failed.
        listener: Its method `progress` is called with the number of faults that have been tried.
        run_began: The time of `time.monotonic` at which the run began.
        run_until: The time at which it ends.
    """
    began = time.monotonic()
    until = _until(began, run_began, run_until)
    try:
        workers.ran(ran)
        faults, without_effect, levels = workers.answer("faults")
    except Lost as lost:
        workers.gaps.append(f"planted faults: the original {lost.death.description}")
        return Sensitivity()

    def tried(done: int) -> None:
        listener.progress("sensitivity", done, len(faults))

    survived: list[str] = []
    untried: list[str] = []
    caught_by: dict[str, str] = {}
    for fault, seen in zip(faults, workers.detections(faults, until, tried), strict=True):
        if seen:
            caught_by[fault] = seen
        elif seen is None:
            untried.append(fault)
        else:
            _unseen(workers, fault, survived, untried, without_effect)
    return Sensitivity(
        tuple(fault for fault in faults if fault in caught_by or fault in survived),
        tuple(survived),
        caught_by,
        time.monotonic() - began,
        without_effect=tuple(sorted(without_effect)),
        untried=tuple(untried),
        levels=dict(zip(faults, levels, strict=True)),
    )


def _until(began: float, run_began: float, run_until: float) -> float:
    # as long as the run so far, for faults that survive; too short a time would call a right pair insensitive
    return min(run_until, began + max(began - run_began, _PLANT_S))


def tried_on_shard(
    workers: Workers,
    shard: tuple[int, int],
    ran: Mapping[str, Mapping[str, Any]],
    listener: Listener,
    *,
    run_began: float,
    run_until: float,
) -> list[ShardFault]:
    """The planted faults of the whole run, tried on the cases of one shard.

    Args:
        workers: The processes that run the pair.
        shard: The number of the shard, from 1, and how many there are.
        ran: As in `measure_sensitivity`, for every planned check: one of which this shard has no case has none.
        listener: Its method `progress` is called with the number of faults that have been tried.
        run_began: The time of `time.monotonic` at which the run began.
        run_until: The time at which it ends.
    """
    until = _until(time.monotonic(), run_began, run_until)
    number, of = shard
    try:
        workers.ran(ran)
        faults = [ShardFault(**fault) for fault in workers.answer("faults_of_shard", number=number, of=of)]
    except Lost as lost:
        workers.gaps.append(f"planted faults: the original {lost.death.description}")
        return []

    def tried(done: int) -> None:
        listener.progress("sensitivity", done, len(faults))

    seen = workers.detections([fault.name for fault in faults], until, tried)
    faults = [replace(fault, seen=by) for fault, by in zip(faults, seen, strict=True)]
    for at, fault in enumerate(faults):
        if fault.decides and fault.seen == "" and not fault.left_out:
            try:
                without_effect = bool(workers.answer("changes_nothing", fault=fault.name))
            except Lost as lost:
                workers.gaps.append(f"the planted fault {fault.name}: the original {lost.description}")
            else:
                faults[at] = replace(fault, without_effect=without_effect)
    return faults


def _unseen(workers: Workers, fault: str, survived: list[str], untried: list[str], without_effect: list[str]) -> None:
    """Decide whether an undetected fault changes nothing around this original, or has survived."""
    try:
        (without_effect if workers.answer("changes_nothing", fault=fault) else survived).append(fault)
    except Lost as lost:
        untried.append(fault)
        workers.gaps.append(f"the planted fault {fault}: the original {lost.description}")
