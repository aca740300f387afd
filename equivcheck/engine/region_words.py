"""What was tried around a failing case, in words."""

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["tried_in_words"]

_EACH = 3  # values of a run that are named one by one


def tried_in_words(tried: Mapping[str, Mapping[Any, bool]], deciding: Sequence[str], hiding: Sequence[str] = ()) -> str:
    """The values of the deciding fields that fail and that pass, and the fields of which every value fails.

    Args:
        tried: Name of a field -> each value that was tried, and whether it fails.
        deciding: The fields of which some values pass.
        hiding: Dtypes in which rounding would hide the difference.
    """
    parts = []
    for name in deciding:
        values = tried[name]
        sides = [(word, [v for v in values if values[v] is fails]) for word, fails in (("fail", True), ("pass", False))]
        verbs = {"fail": "fails", "pass": "passes"}
        said = "; ".join(f"{_listed(some)} {word if len(some) > 1 else verbs[word]}" for word, some in sides if some)
        parts.append(f"{name}: {said}" if len(deciding) > 1 else said)
    others = [name for name, values in tried.items() if name not in deciding and len(values) > 1]
    if others:
        parts.append(f"for every {_and(others)} tried")
    if hiding:
        parts.append(f"rounding in {_and(hiding)} would hide it")
    return ", ".join(parts) if len(deciding) < 2 else "; ".join(parts)


def _listed(values: Sequence[Any]) -> str:
    """Values with commas; of many numbers the ends alone."""
    if isinstance(values[0], bool):
        return "true" if values[0] else "false"
    words = [str(value) or "none" for value in (sorted(values) if not isinstance(values[0], str) else values)]
    if isinstance(values[0], str) or len(words) <= 2 * _EACH:
        return ", ".join(words)
    return f"{', '.join(words[:_EACH])} … {words[-1]}"


def _and(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
