"""Whether a run would have noticed: faults are planted around the original, and tried on the cases of the run."""

import time
from collections.abc import Mapping
from typing import Any

from equivcheck.report.model import Sensitivity
from equivcheck.supervisor.deaths import Lost
from equivcheck.supervisor.listener import Listener
from equivcheck.supervisor.workers_interface import Workers

__all__ = ["measure_sensitivity"]

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
    # as long as the run so far, for faults that survive; too short a time would call a right pair insensitive
    until = min(run_until, began + max(began - run_began, _PLANT_S))
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


def _unseen(workers: Workers, fault: str, survived: list[str], untried: list[str], without_effect: list[str]) -> None:
    """Decide whether an undetected fault changes nothing around this original, or has survived."""
    try:
        (without_effect if workers.answer("changes_nothing", fault=fault) else survived).append(fault)
    except Lost as lost:
        untried.append(fault)
        workers.gaps.append(f"the planted fault {fault}: the original {lost.description}")
