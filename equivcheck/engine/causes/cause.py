"""The cause of a difference: one reading is changed in the attention inside of the original, until all numbers fit.

Without an attention that can be found in the original there is no cause. A cause fits all compared tensors, gradients
too, within the budget of the changed original in float64, on fresh cases of the largest size that still fails, in the
widest dtype that fails, where the original as it is does not fit. All causes that fit are named.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import torch

from equivcheck.cases.case import Case
from equivcheck.engine.causes.failing import Failing, failing_case, fits
from equivcheck.engine.causes.fitting import best, factor_of, round_numbers
from equivcheck.engine.causes.reading import Family, Reading, Rows
from equivcheck.engine.causes.readings import continuous, gradients, listed_readings
from equivcheck.engine.causes.telling import telling_cases
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.sides import ensure_foreign
from equivcheck.report.diagnosis import Cause

__all__ = ["causes_inside"]

_FRESH = 3  # cases, besides the one that numbers are fitted on
_NEAR = 30.0  # times the original's rounding: a reading that leaves more than this is not tried further
_CLEAR = 8.0  # times the original's rounding: an element that differs by more is counted as wrong
_MOST = 3  # causes that are named; more of them say nothing


def causes_inside(subject: Pair, failed: Sequence[Case], *, gradients: bool) -> tuple[Cause, ...]:
    """The faults that, planted into the attention of the original, give the candidate's numbers.

    Args:
        subject: The pair.
        failed: The failing cases, the smallest first.
        gradients: Whether the cause must fit the gradients, too.

    Returns:
        The causes that fit; none if no attention can be found in the original, if none fits, or more than a few do.
    """
    for case in telling_cases(subject, failed):
        failing = failing_case(subject, case, gradients)
        if failing is not None:
            fitting = _fitting(subject, failing)
            return tuple(Cause(r.id, r.words, dict(r.parameters)) for r in fitting) if len(fitting) <= _MOST else ()
    return ()


def _fitting(subject: Pair, failing: Failing) -> list[Reading]:
    """The readings that fit on the case and on fresh ones."""
    rows = _rows(failing)
    some: list[Reading] = []
    fresh = _fresh(subject, failing)
    if not fresh:
        return []
    if rows is None:
        return [] if not failing.gradients else list(_with_gradients(failing, fresh))
    for reading in listed_readings(rows):
        if reading.needs_scale and not failing.carrier.spelled:
            continue
        if _error(failing, reading) <= _NEAR and _everywhere(reading, failing, fresh):
            some.append(reading)
            if len(some) > _MOST:
                return some
    if some:
        return some
    for family in continuous(rows):
        value = best(partial(_error_at, failing, family), family.smallest, family.largest)
        some += _rounded(family, value, failing, fresh, gradients=False)
    return some


def _with_gradients(failing: Failing, fresh: Sequence[Failing]) -> Iterator[Reading]:
    for family in gradients():
        at_zero, at_one = (failing.edited(family.make(f).edit).oracle_values(gradients=True) for f in (0.0, 1.0))
        factor = factor_of(failing.results, at_zero, at_one)
        if factor is not None and abs(factor - 1) > 1e-6:
            yield from _rounded(family, factor, failing, fresh, gradients=True)


def _rounded(
    family: Family, value: float, failing: Failing, fresh: Sequence[Failing], *, gradients: bool
) -> list[Reading]:
    """The reading with the roundest number near this one that fits; none if no such number does."""
    for number in dict.fromkeys(round_numbers(value)):
        with suppress(ZeroDivisionError):
            reading = family.make(number)
            near = abs(number - 1) > 1e-6 and _error(failing, reading, gradients=gradients) <= _NEAR
            if near and _everywhere(reading, failing, fresh):
                return [reading]
    return []


def _error(failing: Failing, reading: Reading, *, gradients: bool = False) -> float:
    try:
        return failing.error(reading.edit, gradients=gradients)
    except Exception as error:  # a reading that the shapes of this original do not allow
        ensure_foreign(error)
        return float("inf")


def _error_at(failing: Failing, family: Family, value: float) -> float:
    return _error(failing, family.make(value))


def _everywhere(reading: Reading, failing: Failing, fresh: Sequence[Failing]) -> bool:
    return all(
        fits(one.edited(reading.edit), one.results, gradients=one.gradients)  # of all tensors
        for one in (failing, *fresh)
    )


def _fresh(subject: Pair, failing: Failing) -> list[Failing]:
    """Cases of the same sizes with other seeds, on which the candidate fails as well."""
    case = failing.problem.case
    cases = [case.but(seed=case.seed + 1 + at) for at in range(2 * _FRESH)]
    some: list[Failing] = []
    for other in cases:
        one = failing_case(subject, other, failing.gradients)
        if one is not None:
            some.append(one)
        if len(some) == _FRESH:
            break
    return some


def _rows(failing: Failing) -> Rows | None:
    """What the difference of the outputs says; None if they do not differ."""
    case = failing.problem.case
    oracle, value = failing.oracle[failing.main], failing.results.get(failing.main)
    if value is None or value.shape != oracle.shape:
        return None
    wrong = (value.to(oracle) - oracle).abs() > _CLEAR * failing.rounding[failing.main]
    axis = oracle.dim() - 2 if failing.main == "output" else 1
    by_query = wrong.movedim(axis, 0).flatten(1).any(-1)
    places = torch.nonzero(by_query).flatten().tolist()
    if not places:
        return None
    scales: list[Any] = [scale for scale in failing.carrier.scales.values() if scale is not None]
    return Rows(
        queries=case.seq_len,
        keys=case.kv_len or case.seq_len,
        first=places[0],
        last=places[-1],
        band=failing.carrier.band or case.kv_len or case.seq_len,
        causal=failing.carrier.causal,
        groups=failing.carrier.groups,
        heads=failing.carrier.heads,
        scale=scales[0] if scales else None,
        width=case.n_embd,
        rate=case.attn_pdrop,
    )
