"""Cases that together meet every pair of classes of a case's factors, inside the domain: a covering array."""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

from equivcheck.cases.case import Case
from equivcheck.cases.factors import labels_of
from equivcheck.cases.space import CaseSpace
from equivcheck.checks import Check
from equivcheck.engine.case_cost import bounds_of
from equivcheck.engine.covering_array import ClassPair, CoveringArray, class_pair
from equivcheck.engine.strata import space_of
from equivcheck.pairs.pair import Pair

__all__ = ["chosen", "coverage_left", "coverage_of", "rows_of"]


_AT_ONCE = 16  # cases that a worker runs as one class


def rows_of(
    checks: Iterable[Check], subject: Pair, dtypes: Sequence[str], profile: str, seed: int
) -> dict[str, dict[str, Any]]:
    """Name of a check -> the cases that meet every pair of classes, and the pairs that none in the domain meets.

    Args:
        checks: The checks of a run.
        subject: The pair.
        dtypes: The dtypes in which it is judged.
        profile: The profile of the run.
        seed: The seed of the run: it chooses the sizes within a class.
    """
    rows: dict[str, dict[str, Any]] = {}
    made: list[tuple[CaseSpace, dict[str, Any]]] = []
    for check in checks:
        space = space_of(check, subject, dtypes)
        if not _covers(check, subject, profile) or not space.dtypes:
            continue
        known = next((row for other, row in made if other == space), None)
        if known is None:
            known = _array(space, subject, profile, seed).made()
            made.append((space, known))
        rows[check.name] = known
    return rows


def _covers(check: Check, subject: Pair, profile: str) -> bool:
    """Whether a run of this profile meets every pair: a gate where it costs least, a thorough run wherever it can."""
    return bool(check.covering) if profile == "thorough" else profile == "gate" and subject.kind in check.covering


def chosen(rows: Mapping[str, Any]) -> list[tuple[Any, int]]:
    """The cases of a check that meet every pair, as classes of a search."""
    ids = rows.get("cases", ())
    parts = [tuple(map(Case.parse, ids[at : at + _AT_ONCE])) for at in range(0, len(ids), _AT_ONCE)]
    return [(part, len(part)) for part in parts]


def coverage_of(
    check: Check, subject: Pair, dtypes: Sequence[str], profile: str, rows: Mapping[str, Any], judged: Iterable[str]
) -> dict[str, Any]:
    """The number of pairs of classes that judged cases meet, of how many, and how many are not met, by reason.

    Args:
        check: The check.
        subject: The pair.
        dtypes: The dtypes in which it is judged.
        profile: The profile of the run.
        rows: The check's entry of `rows_of`.
        judged: The ids of its judged cases.
    """
    array, wanted, costly = _classes(check, subject, dtypes, profile, rows)
    met = _met(array, judged)
    reasons = {"cost": len(costly - met), "not judged": len(wanted - met)}
    return {
        "met": len(met & wanted),
        "of": len(wanted),
        "not_met": {reason: count for reason, count in reasons.items() if count},
    }


def coverage_left(
    check: Check,
    subject: Pair,
    dtypes: Sequence[str],
    profile: str,
    rows: Mapping[str, Any],
    judged: Sequence[Iterable[str]],
) -> list[list[dict[str, Any]]]:
    """For each of several lists of cases the pairs of classes that it does not meet: a bit for each pair, in order.

    The arguments are those of `coverage_of`, but for `judged`. The pairs of which every list has the bit are not met.
    """
    array, wanted, costly = _classes(check, subject, dtypes, profile, rows)

    def left(cases: Iterable[str]) -> dict[str, Any]:
        met = _met(array, cases)
        not_met = {"cost": _bits(costly, met), "not judged": _bits(wanted, met)}
        return {"strength": "pairs", "of": len(wanted), "not_met": not_met}

    return [[left(cases)] for cases in judged]


def _bits(pairs: Set[ClassPair], met: Set[ClassPair]) -> str:
    return hex(sum(1 << at for at, pair in enumerate(sorted(pairs)) if pair not in met))


def _classes(
    check: Check, subject: Pair, dtypes: Sequence[str], profile: str, rows: Mapping[str, Any]
) -> tuple[CoveringArray, set[ClassPair], set[ClassPair]]:
    """The array of a check's classes, the pairs that cases can meet, and those that cost too much."""
    array = _array(space_of(check, subject, dtypes), subject, profile, 0)
    wanted, costly = array.wanted()
    return array, wanted - {class_pair(*pair) for pair in rows["outside"]}, costly


def _met(array: CoveringArray, cases: Iterable[str]) -> set[ClassPair]:
    """The pairs that cases meet."""
    return {pair for case in map(Case.parse, cases) for pair in array.pairs(labels_of(case, array.factors))}


def _array(space: CaseSpace, subject: Pair, profile: str, seed: int) -> CoveringArray:
    bounds = bounds_of(profile, subject.device.type)
    return CoveringArray(space, bounds, has_weights=not subject.traits.function, seed=seed)
