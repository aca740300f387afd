"""The proof that a run would have noticed: faults are put through the checks and cases that the candidate went through."""

import time
from collections.abc import Callable, Iterator, Sequence

from equivcheck import planting
from equivcheck.cases import DTYPES, Case
from equivcheck.comparison import Mismatch
from equivcheck.report.model import Sensitivity
from equivcheck.search import Search
from equivcheck.subject import Subject

__all__ = ["sensitivity_of"]


def sensitivity_of(
    subject: Subject,
    searches: Sequence[Search],
    profile: str,
    seed: int,
    until: float,
    told: Callable[[int, int], None],
    dtypes: Sequence[str] = DTYPES,
) -> Sensitivity:
    """Which faults the checks of these searches see on the cases of these searches; `told` hears how many of all are done."""
    began = time.monotonic()
    ran = {s.check.name: s for s in searches if s.failed or any(held.judged for held in s.held.values())}
    faults = planting.planted(subject, set(ran), profile, seed, dtypes)
    survived, caught_by = [], {}
    for number, fault in enumerate(faults):
        told(number, len(faults))
        seen = _first_sighting(fault.subject, [ran[name] for name in fault.seen_by if name in ran], until)
        if seen:
            caught_by[fault.name] = seen
        else:
            survived.append(fault.name)
    told(len(faults), len(faults))
    return Sensitivity(tuple(fault.name for fault in faults), tuple(survived), caught_by, time.monotonic() - began)


def _first_sighting(fault: Subject, searches: Sequence[Search], until: float) -> str:
    for search, case in _in_turn(searches):
        if time.monotonic() > until:
            return ""
        try:
            search.check.run(fault, case)
        except Mismatch:
            return f"{search.check.name} on {case.id}"
    return ""


def _in_turn(searches: Sequence[Search]) -> Iterator[tuple[Search, Case]]:
    """The run's cases, those of the first search first; within one, a wide float before a narrow one."""
    order = {"float64": 0, "float32": 1, "bfloat16": 2, "float16": 3}
    for search in searches:
        seen = (*search.held, *search.failed)
        for case in sorted(seen, key=lambda c: order[c.dtype]):
            if case in search.failed or search.held[case].judged:
                yield search, case
