"""The four levels of a verdict, and which of them a run must reach."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal

from equivcheck.errors import UsageError
from equivcheck.runtime.nearest_name import did_you_mean

if TYPE_CHECKING:  # the model imports this module
    from equivcheck.report.model import CheckResult

__all__ = ["DROP_IN", "LEVELS", "TRAINING", "TRANSFORMS", "VALUES", "Level", "levels_of", "outcome_at", "required_of"]

Level = Literal["values", "training", "transforms", "drop-in"]
LEVELS = VALUES, TRAINING, TRANSFORMS, DROP_IN = ("values", "training", "transforms", "drop-in")
"""Same numbers, same behaviour when trained, same under transforms of torch, and everything around the numbers."""

_OF_A_FUNCTION = (VALUES, TRAINING)


def required_of(kind: str) -> tuple[str, ...]:
    """The levels that are required of a pair of this kind unless a user says otherwise."""
    return _OF_A_FUNCTION if kind == "function" else LEVELS


def levels_of(names: str | Iterable[str] | None, option: str = "--require") -> tuple[str, ...] | None:
    """The levels that a user named, in their order; None if nothing was given.

    Args:
        names: Level names, or one text with commas between them.
        option: The option in messages.

    Raises:
        UsageError: There is no such level, or none was named.
    """
    if names is None:
        return None
    asked = [name.strip() for name in (names.split(",") if isinstance(names, str) else names)]
    asked = [name for name in asked if name]
    if not asked:
        raise UsageError(f"{option} names no level: allowed are {', '.join(LEVELS)}, with commas between them")
    for name in asked:
        if name not in LEVELS:
            raise UsageError(
                f"{option}: unknown level {name!r}: allowed are {', '.join(LEVELS)}{did_you_mean(name, LEVELS)}"
            )
    return tuple(level for level in LEVELS if level in asked)


_IN_ORDER = ("different", "not judged", "not refuted", "equivalent", "unsupported", "deviation", "not applicable")
"""Of several checks the first of these is the outcome of the level: a refusal or a deviation leaves it equivalent."""


def outcome_at(level: str, results: Sequence["CheckResult"], *, applies: bool) -> str:
    """The outcome of a run at a level.

    Args:
        level: The level.
        results: The results of the checks.
        applies: Whether some check of a pair of this kind looks at the level.

    Returns:
        The first of `_IN_ORDER` that some check has at this level. Without such a check it is `not judged`, or
        `not applicable` if the level does not apply.
    """
    outcomes = {result.levels[level] for result in results if level in result.levels}
    for outcome in _IN_ORDER:
        if outcome in outcomes:
            return outcome
    return "not judged" if applies else "not applicable"
