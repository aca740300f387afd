"""The proof that a run would have noticed: faults are put through the checks and cases that the candidate went through."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from equivcheck import planting
from equivcheck.cases import DTYPES, Case
from equivcheck.checks import Check
from equivcheck.comparison import Mismatch
from equivcheck.errors import ReferenceRaises
from equivcheck.planting import PlantedFault
from equivcheck.probes import PROBES, Probes
from equivcheck.problem import Results
from equivcheck.report.model import Sensitivity
from equivcheck.search import Search
from equivcheck.settings import kept
from equivcheck.sides import ensure_foreign
from equivcheck.subject import Subject

__all__ = ["Sighting", "first_sighting", "planted_named", "sensitivity_of"]


_WIDEST = ("float64", "float32", "bfloat16", "float16")
_BY_VALUE = ("output", "gradients", "logits", "dropout")  # whose faults a plain pass shows
_OF_RESULTS = frozenset(
    {
        "causality",
        "batching",
        "lengths",
        "training",
        "generation",
        "decoding",
        "derivatives",
        "autocast",
        "compile",
        "long",
    }
    | {"bias", *_BY_VALUE}
)
"""The checks that look at nothing but the results of passes."""
_MISSED = 1e-3
"""The chance that a run misses a fault that rounding hides in most cases: one that is missed more often is no test of the run."""
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
    def sightings(self, sightings: Sequence[Sighting], told: Callable[[int], None]) -> Iterator[str | None]: ...


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
    """Which faults the checks of these searches see on the cases of these searches.

    A fault that changes nothing in the probe cases is left out: a doubtful one before it is looked for, where what it changes
    is no more than rounding explains, and one that values show where the run's cases did not show it. What time did not
    suffice for is neither seen nor survived.

    Args:
        subject: The pair.
        searches: What was run, with the cases that were.
        profile: The run's profile.
        seed: The run's seed.
        until: When to end, as a time of `time.monotonic`.
        told: Hears how many faults of all are done.
        workers: Who looks.
        dtypes: Those in which the pair was judged.
    """
    began = time.monotonic()
    ran = {s.check.name: s for s in searches if s.failed or any(held.judged for held in s.held.values())}
    checks = frozenset(ran)
    probes = Probes(subject, dtypes, {name: search.planned for name, search in ran.items()}, seed)

    def changed(fault: PlantedFault) -> Iterator[tuple[Check, Case]]:
        return probes.changed_by(fault.subject, [ran[name].check for name in fault.seen_by if name in ran])

    def is_one(fault: PlantedFault) -> bool:
        if fault.without is subject and ran[fault.seen_by[0]].failed:
            return False  # the candidate fails there by itself: what is planted around it shows nothing more
        return not fault.doubtful or _shows_often(
            fault, changed(fault), sum(ran[n].planned for n in fault.seen_by if n in ran)
        )

    faults: list[PlantedFault] = []
    without_effect: list[PlantedFault] = []
    for fault in planting.planted(subject, checks, profile, seed, dtypes):
        (faults if is_one(fault) else without_effect).append(fault)
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
    survived, untried, caught_by = [], [], {}
    for fault, seen in zip(faults, workers.sightings(looked, lambda done: told(done, len(faults))), strict=True):
        if seen:
            caught_by[fault.name] = seen
        elif seen is None:
            untried.append(fault.name)
        elif fault.seen_by[0] in _BY_VALUE and next(changed(fault), None) is None:
            without_effect.append(fault)
        else:
            survived.append(fault.name)
    return Sensitivity(
        tuple(fault.name for fault in faults if fault.name in caught_by or fault.name in survived),
        tuple(survived),
        caught_by,
        time.monotonic() - began,
        without_effect=tuple(sorted(fault.name for fault in without_effect)),
        untried=tuple(untried),
    )


_latest: list[tuple[Subject, tuple[frozenset[str], str, int], dict[str, PlantedFault]]] = []


def planted_named(subject: Subject, checks: frozenset[str], profile: str, seed: int, name: str) -> PlantedFault:
    """The fault of this name among those that such a run plants."""
    key = (checks, profile, seed)
    # a subject with a transfer in it may have no hash
    if not _latest or _latest[0][0] is not subject or _latest[0][1] != key:
        _latest[:] = [(subject, key, {f.name: f for f in planting.planted(subject, checks, profile, seed)})]
    return _latest[0][2][name]


def first_sighting(fault: PlantedFault, cases: Sequence[tuple[Check, Case]], until: float) -> str | None:
    """The first of these checks and cases in which the fault is seen.

    Returns:
        The check and the case, `""` where it is seen in none of them, None where time ran out before that was known.
    """
    for check, case in cases:
        if time.monotonic() > until:
            return None
        # what shows without the fault as well is no sight of it
        if _fails(check, fault.subject, case) and not _fails_without(check, fault.without, case):
            return f"{check.name} on {case.id}"
    return ""


def _shows_often(fault: PlantedFault, probes: Iterator[tuple[Check, Case]], planned: int) -> bool:
    """Whether a fault shows in so many of the probe cases that a run of this many cases would hardly miss it."""
    share = 1.0 - _MISSED ** (1.0 / max(1, planned))
    enough = math.ceil(share * PROBES)
    seen = 0
    for check, case in probes:
        seen += _fails(check, fault.subject, case)
        if seen >= enough:
            return True
    return False


def _fails(check: Check, subject: Subject, case: Case) -> bool:
    try:
        with kept():
            check.run(subject, case)
    except Mismatch:
        return True
    except ReferenceRaises:  # as it may now and then
        return False
    except Exception as error:
        ensure_foreign(error)
    return False


_without: list[tuple[Subject, dict[tuple[int, str, Case], bool]]] = []


def _fails_without(check: Check, subject: Subject, case: Case) -> bool:
    """Whether a check fails on a case where no fault is planted: asked once for all faults."""
    if not _without or _without[0][0].reference is not subject.reference:
        _without[:] = [(subject, {})]
    known = _without[0][1]
    key = (id(subject.candidate), check.name, case)
    if key not in known:
        known[key] = not (check.name in _OF_RESULTS and _repeats(subject, case)) and _fails(check, subject, case)
    return known[key]


def _repeats(subject: Subject, case: Case) -> bool:
    """Whether the original gives the same bits again, from another module and from the same one: it does not differ from itself."""
    try:
        problem = subject.problem(case)
        runs = [
            [problem.run(module, problem.inputs, gradients=gradients) for gradients in (False, True)]
            for module in (problem.reference, problem.make_reference(), problem.reference)
        ]
    except Exception as error:
        ensure_foreign(error)
        return False
    return all(_same(one, other) for again in runs[1:] for one, other in zip(runs[0], again, strict=True))


def _same(one: Results, other: Results) -> bool:
    pairs = [(value, other.get(name)) for name, value in one.items()]
    return all(
        (a is None and b is None)
        or (a is not None and b is not None and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)))
        for a, b in pairs
    )


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
