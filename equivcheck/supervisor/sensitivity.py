"""Whether a run would have noticed: faults are planted around the original, and looked for in the cases that were run."""

import time
from collections.abc import Mapping
from typing import Any

from equivcheck.report.model import Sensitivity
from equivcheck.supervisor.deaths import Lost
from equivcheck.supervisor.listener import Listener
from equivcheck.supervisor.workers_interface import Workers

__all__ = ["measure_sensitivity"]

_PLANT_S = 120.0  # where planting takes five, on a machine that has nothing else to do


def measure_sensitivity(
    workers: Workers, ran: Mapping[str, Mapping[str, Any]], listener: Listener, *, run_began: float, run_until: float
) -> Sensitivity:
    """Which of the planted faults were seen, and which have survived.

    Args:
        workers: Who plants them.
        ran: Name of a check -> how many cases were planned, those that it judged, and whether one failed.
        listener: Hears how many faults have been tried.
        run_began: When the run began, as a time of `time.monotonic`.
        run_until: When it is to end.
    """
    began = time.monotonic()
    # as long again, for faults that nothing sees; to run out of it where all would be seen calls a right pair insensitive
    until = min(run_until, began + max(began - run_began, _PLANT_S))
    try:
        workers.ran(ran)
        faults, without_effect = workers.answer("faults")
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
    )


def _unseen(workers: Workers, fault: str, survived: list[str], untried: list[str], without_effect: list[str]) -> None:
    """Find out what a fault is that was not seen: none around this original, or one that has survived."""
    try:
        (without_effect if workers.answer("changes_nothing", fault=fault) else survived).append(fault)
    except Lost as lost:
        untried.append(fault)
        workers.gaps.append(f"the planted fault {fault}: the original {lost.description}")
