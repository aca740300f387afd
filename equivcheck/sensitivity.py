"""The proof that a run would have noticed: faults are put through the checks and cases that the candidate went through."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from equivcheck import planting
from equivcheck.cases import DTYPES, Case
from equivcheck.checks import Check
from equivcheck.comparison import Mismatch
from equivcheck.planting import PlantedFault
from equivcheck.report.model import Sensitivity
from equivcheck.search import Search
from equivcheck.settings import kept
from equivcheck.subject import Subject

__all__ = ["Sighting", "first_sighting", "planted_named", "sensitivity_of"]


_WIDEST = ("float64", "float32", "bfloat16", "float16")
_AT_ONCE = 12  # cases of one dtype, before it is the next one's turn


@dataclass(frozen=True)
class Sighting:
    """One planted fault, and the checks and cases in which it should be seen; the rest says how it is planted again elsewhere."""

    fault: PlantedFault
    cases: tuple[tuple[Check, Case], ...]
    checks: frozenset[str]
    profile: str
    seed: int
    until: float


class _Looks(Protocol):
    def sightings(self, sightings: Sequence[Sighting], told: Callable[[int], None]) -> Iterator[str]: ...


def sensitivity_of(
    subject: Subject,
    searches: Sequence[Search],
    profile: str,
    seed: int,
    until: float,
    told: Callable[[int, int], None],
    workers: _Looks,
    dtypes: Sequence[str] = DTYPES,
) -> Sensitivity:
    """Which faults the checks of these searches see on the cases of these searches; `told` hears how many of all are done."""
    began = time.monotonic()
    ran = {s.check.name: s for s in searches if s.failed or any(held.judged for held in s.held.values())}
    checks = frozenset(ran)
    faults = planting.planted(subject, checks, profile, seed, dtypes)
    looked = [
        Sighting(
            fault,
            tuple(_in_turn([ran[n] for n in fault.seen_by if n in ran], fault.shows_in)),
            checks,
            profile,
            seed,
            until,
        )
        for fault in faults
    ]
    survived, caught_by = [], {}
    for fault, seen in zip(faults, workers.sightings(looked, lambda done: told(done, len(faults))), strict=True):
        if seen:
            caught_by[fault.name] = seen
        else:
            survived.append(fault.name)
    return Sensitivity(tuple(fault.name for fault in faults), tuple(survived), caught_by, time.monotonic() - began)


_latest: list[tuple[Subject, tuple[frozenset[str], str, int], dict[str, PlantedFault]]] = []


def planted_named(subject: Subject, checks: frozenset[str], profile: str, seed: int, name: str) -> PlantedFault:
    """The fault of this name among those that such a run plants."""
    key = (checks, profile, seed)
    # a subject with a transfer in it may have no hash
    if not _latest or _latest[0][0] is not subject or _latest[0][1] != key:
        _latest[:] = [(subject, key, {f.name: f for f in planting.planted(subject, checks, profile, seed, own=())})]
    return _latest[0][2][name]


def first_sighting(fault: Subject, cases: Sequence[tuple[Check, Case]], until: float) -> str:
    """The first of these checks and cases in which the fault is seen, or nothing."""
    for check, case in cases:
        if time.monotonic() > until:
            return ""
        try:
            with kept():
                check.run(fault, case)
        except Mismatch:
            return f"{check.name} on {case.id}"
    return ""


def _in_turn(searches: Sequence[Search], shows_in: Sequence[str]) -> Iterator[tuple[Check, Case]]:
    """The run's cases, those of the first search first; within one some of each dtype in turn, those that show the fault first.

    After these come wide floats. Of one dtype short ones and long ones take turns: what is wrong from some length on is not
    looked for in all shorter ones, nor what is wrong in one dtype in all the others.
    """
    for search in searches:
        seen = [c for c in (*search.held, *search.failed) if c in search.failed or search.held[c].judged]
        alike = [
            [case for case in seen if case.dtype == dtype]  # as they were drawn: short ones first
            for dtype in sorted(_WIDEST, key=lambda d: d not in shows_in)
        ]
        most = max(map(len, alike), default=0)
        for start in range(0, most, _AT_ONCE):
            for of_one in alike:
                for at in range(start, min(start + _AT_ONCE, len(of_one))):
                    yield search.check, of_one[at // 2 if at % 2 == 0 else -(at + 1) // 2]
