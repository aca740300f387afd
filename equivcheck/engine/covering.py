"""Cases that together meet every pair of classes of a case's factors, or every triple, inside the domain."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from equivcheck.cases.case import Case
from equivcheck.cases.space import CaseSpace
from equivcheck.checks import Check
from equivcheck.engine.case_cost import bounds_of
from equivcheck.engine.combinations import ClassCombinations, by_class
from equivcheck.engine.covering_array import CoveringArray, classes_of
from equivcheck.engine.strata import space_of
from equivcheck.pairs.pair import Pair

__all__ = ["chosen", "coverage_left", "coverage_of", "rows_of"]

_STRENGTHS = {"pairs": 2, "triples": 3}
_AT_ONCE = 16  # cases that a worker runs as one class


def rows_of(
    checks: Iterable[Check], subject: Pair, dtypes: Sequence[str], profile: str, seed: int
) -> dict[str, dict[str, Any]]:
    """Name of a check -> the cases that meet every pair of classes, and the pairs that none in the domain meets.

    In a thorough run they are triples.

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
) -> dict[str, dict[str, Any]]:
    """Strength -> the number of combinations of classes that judged cases meet, of how many, and those not met, by reason.

    The strengths are `pairs` and `triples`. A triple counts if no two of its classes are outside of the domain; in a
    thorough run it does not count, either, if no case in the domain was found for it.

    Args:
        check: The check.
        subject: The pair.
        dtypes: The dtypes in which it is judged.
        profile: The profile of the run.
        rows: The check's entry of `rows_of`.
        judged: The ids of its judged cases.
    """
    coverage = {}
    for left in coverage_left(check, subject, dtypes, profile, rows, [judged])[0]:
        counts = {reason: int(bits, 16).bit_count() for reason, bits in left["not_met"].items()}
        coverage[left["strength"]] = {
            "met": left["of"] - counts["not judged"],
            "of": left["of"],
            "not_met": {reason: count for reason, count in counts.items() if count},
        }
    return coverage


def coverage_left(
    check: Check,
    subject: Pair,
    dtypes: Sequence[str],
    profile: str,
    rows: Mapping[str, Any],
    judged: Sequence[Iterable[str]],
) -> list[list[dict[str, Any]]]:
    """For each of several lists of cases, and each strength, the combinations that it does not meet.

    They are a number with a bit for each, in the same order for every list. The arguments are those of `coverage_of`,
    but for `judged`. The combinations of which every list has the bit are not met.
    """
    array = _array(space_of(check, subject, dtypes), subject, profile, 0)
    outside = set(map(classes_of, rows["outside"]))
    of_strengths = {name: ClassCombinations(array, size, outside) for name, size in _STRENGTHS.items()}
    return [
        [
            {
                "strength": name,
                "of": combinations.of,
                "not_met": {reason: hex(bits) for reason, bits in combinations.not_met(cases).items()},
            }
            for name, combinations in of_strengths.items()
        ]
        for cases in (by_class(array, ids) for ids in judged)
    ]


def _array(space: CaseSpace, subject: Pair, profile: str, seed: int) -> CoveringArray:
    bounds = bounds_of(profile, subject.device.type)
    strength = _STRENGTHS["triples" if profile == "thorough" else "pairs"]
    return CoveringArray(space, bounds, has_weights=not subject.traits.function, seed=seed, strength=strength)
