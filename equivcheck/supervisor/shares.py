"""Which classes of cases each of several shards runs: it follows from the plan, so that no shard asks another."""

from collections.abc import Mapping, Sequence
from typing import Any

from equivcheck.report.catalogue import is_listed, listed

__all__ = ["classes_of_shard"]


def classes_of_shard(checks: Sequence[Mapping[str, Any]], shard: tuple[int, int] | None) -> dict[str, list[int]]:
    """Name of a check -> the numbers of the classes of its cases that a shard runs; all of them without a shard.

    A class is the smallest part that is handed out: Hypothesis draws its cases one after the other. A check with several
    findings stays whole, as each finding decides what is passed over in the next round of all its cases. The largest
    parts are handed out first, each to the shard with the fewest cases; slow checks are counted by themselves.

    Args:
        checks: The checks of a plan.
        shard: The number of the shard, from 1, and how many there are.
    """
    if shard is None:
        return {check["name"]: list(range(check["classes"])) for check in checks}
    number, of = shard
    parts = [
        (check["slow"], sum(check["counts"][n] for n in numbers), check["name"], numbers)
        for check in checks
        for numbers in _parts(check)
    ]
    cases = {slow: [0] * of for slow in (True, False)}
    taken: dict[str, list[int]] = {check["name"]: [] for check in checks}
    for slow, count, name, numbers in sorted(parts, key=lambda part: (not part[0], -part[1])):
        least = min(range(of), key=lambda at: (cases[slow][at], cases[True][at] + cases[False][at], at))
        cases[slow][least] += count
        if least == number - 1:
            taken[name] += numbers
    return {name: sorted(numbers) for name, numbers in taken.items()}


def _parts(check: Mapping[str, Any]) -> list[list[int]]:
    numbers = list(range(check["classes"]))
    whole = is_listed(check["name"]) and bool(listed(check["name"]).findings)
    return [numbers] if whole and numbers else [[number] for number in numbers]
