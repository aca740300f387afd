"""The proof that a run would have noticed: planted faults are judged by the checks and cases of the candidate."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from equivcheck.cases.case import Case
from equivcheck.checks import Check
from equivcheck.engine import planting
from equivcheck.engine.planting import PlantedFault
from equivcheck.engine.probes import PROBES, Probes
from equivcheck.errors import Mismatch, ReferenceRaises
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Results
from equivcheck.pairs.sides import ensure_foreign
from equivcheck.runtime.global_state import preserved

__all__ = ["Plants", "Ran", "first_detection"]

_WIDEST = sorted(DTYPES, key=lambda name: -float(torch.finfo(getattr(torch, name)).max))
_BY_VALUE = ("output", "gradients", "logits", "dropout")  # a plain pass shows their faults
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
"""The chance that a run misses a fault that rounding hides in most cases: a fault missed more often is no test."""
_AT_ONCE = 12  # cases of one dtype, before those of the next


@dataclass(frozen=True)
class Ran:
    """A check that judged something in this run, and the cases that it failed on or judged.

    Attributes:
        check: The check.
        planned: How many cases were planned.
        cases: The cases that it judged, in the order in which they were run, and after them those that failed.
        failed: Whether any case failed.
    """

    check: Check
    planned: int
    cases: tuple[Case, ...]
    failed: bool


class Plants:
    """The faults of one run, and the cases that detect them.

    A fault that changes nothing in the probe cases is left out. For a doubtful fault this is decided before the search,
    by the checks themselves; for a fault of values it is decided if the run's cases did not detect it.
    """

    def __init__(
        self,
        subject: Pair,
        ran: Sequence[Ran],
        profile: str,
        seed: int,
        dtypes: Sequence[str],
        checks: Iterable[str] | None = None,
    ) -> None:
        """Plant nothing yet.

        Args:
            subject: The pair.
            ran: The checks, with their cases.
            profile: The run's profile.
            seed: The run's seed.
            dtypes: The dtypes in which the pair was judged.
            checks: The names of the planned checks, from which the choice of the faults follows; None for those of
                `ran`. A shard of a run chooses the same ones so, whatever it has judged.
        """
        self.subject = subject
        self._ran = {one.check.name: one for one in ran}
        self._probes = Probes(subject, dtypes, {name: one.planned for name, one in self._ran.items()}, seed)
        names = frozenset(self._ran if checks is None else checks)
        faults = planting.planted(subject, names, profile, seed, dtypes)
        self._planted = {fault.name: fault for fault in faults if fault.seen_by[0] in self._ran}

    def chosen(self) -> tuple[list[str], list[str]]:
        """The names of the faults to look for, and of those that are left out."""
        faults: list[str] = []
        without_effect: list[str] = []
        for name, fault in self._planted.items():
            (faults if self._is_one(fault) else without_effect).append(name)
        return faults, without_effect

    def level_of(self, name: str) -> str:
        """The level at which the fault of this name is wrong."""
        return self._planted[name].level

    def _is_one(self, fault: PlantedFault) -> bool:
        if fault.without is self.subject and self._ran[fault.seen_by[0]].failed:
            return False  # the candidate fails there by itself: a fault around it shows nothing more
        return self._would_show(fault)

    def _would_show(self, fault: PlantedFault) -> bool:
        """Whether a run of as many cases would hardly miss the fault."""
        planned = sum(self._ran[name].planned for name in fault.seen_by if name in self._ran)
        return not fault.doubtful or _shows_often(fault, self._changed(fault), planned)

    def of_shard(self, number: int, of: int) -> list[dict[str, Any]]:
        """The fields of a `report.shard.ShardFault` for each fault; one shard of all decides whether it is left out."""
        fields = []
        for at, (name, fault) in enumerate(self._planted.items()):
            decides = at % of == number - 1
            fields.append(
                {
                    "name": name,
                    "level": fault.level,
                    "check": fault.seen_by[0],
                    "of_candidate": fault.without is self.subject,
                    "decides": decides,
                    "left_out": decides and not self._would_show(fault),
                }
            )
        return fields

    def _changed(self, fault: PlantedFault) -> Iterator[tuple[Check, Case]]:
        checks = [self._ran[name].check for name in fault.seen_by if name in self._ran]
        return self._probes.changed_by(fault.subject, checks)

    def detect(self, name: str, until: float, began: Callable[[Case], None]) -> str | None:
        """The first detection of the fault of this name in the run's cases, as `first_detection` returns it."""
        fault = self._planted[name]
        ran = [self._ran[n] for n in fault.seen_by if n in self._ran]
        return first_detection(fault, _in_turn(ran, fault.shows_in), until, began)

    def changes_nothing(self, name: str) -> bool:
        """Whether the fault of this name is one of values, and changes no probe case."""
        fault = self._planted[name]
        return fault.seen_by[0] in _BY_VALUE and next(self._changed(fault), None) is None


def first_detection(
    fault: PlantedFault,
    cases: Iterable[tuple[Check, Case]],
    until: float,
    began: Callable[[Case], None] = lambda _: None,
) -> str | None:
    """The first of these checks and cases that detects the fault.

    Args:
        fault: The fault.
        cases: The checks and cases to try, in this order.
        until: The time of `time.monotonic` at which the search ends.
        began: A function that is given each case before it is run.

    Returns:
        The check and the case in words, `""` if none detects it, None if time ran out before that was known.
    """
    for check, case in cases:
        if time.monotonic() > until:
            return None
        began(case)
        # a check that fails without the fault as well does not detect it
        if _fails(check, fault.subject, case) and not _fails_without(check, fault.without, case):
            return f"{check.name} on {case.id}"
    return ""


def _shows_often(fault: PlantedFault, probes: Iterator[tuple[Check, Case]], planned: int) -> bool:
    """Whether a fault shows in so many probe cases that a run of `planned` cases would hardly miss it."""
    share = 1.0 - _MISSED ** (1.0 / max(1, planned))
    enough = math.ceil(share * PROBES)
    seen = 0
    for check, case in probes:
        seen += _fails(check, fault.subject, case)
        if seen >= enough:
            return True
    return False


def _fails(check: Check, subject: Pair, case: Case) -> bool:
    try:
        with preserved():
            check.run(subject, case)
    except Mismatch:
        return True
    except ReferenceRaises:  # the original refuses some cases
        return False
    except Exception as error:
        ensure_foreign(error)
    return False


_without: list[tuple[Pair, dict[tuple[int, str, Case], bool]]] = []


def _fails_without(check: Check, subject: Pair, case: Case) -> bool:
    """Whether a check fails on a case without a fault; the answer is kept for all faults."""
    if not _without or _without[0][0].reference is not subject.reference:
        _without[:] = [(subject, {})]
    known = _without[0][1]
    key = (id(subject.candidate), check.name, case)
    if key not in known:
        known[key] = not (check.name in _OF_RESULTS and _repeats(subject, case)) and _fails(check, subject, case)
    return known[key]


def _repeats(subject: Pair, case: Case) -> bool:
    """Whether the original gives the same bits again, from another module and from the same one."""
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


def _in_turn(ran: Sequence[Ran], shows_in: Sequence[str]) -> Iterator[tuple[Check, Case]]:
    """The order in which cases are tried: by check, then by dtype in blocks of `_AT_ONCE`, the fault's dtypes first.

    The other dtypes follow, the widest first. Within a dtype short and long cases alternate, so that a fault from some
    length on is not tried in all shorter cases, nor a fault of one dtype in all others.
    """
    for one in ran:
        alike = [
            [
                case for case in one.cases if case.dtype == dtype
            ]  # in the order in which they were drawn: short ones first
            for dtype in sorted(_WIDEST, key=lambda d: d not in shows_in)
        ]
        most = max(map(len, alike), default=0)
        for start in range(0, most, _AT_ONCE):
            for of_one in alike:
                for at in range(start, min(start + _AT_ONCE, len(of_one))):
                    yield one.check, of_one[at // 2 if at % 2 == 0 else -(at + 1) // 2]
