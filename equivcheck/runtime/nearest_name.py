"""The name that a misspelt one was probably meant to be, for the end of an error message."""

from collections.abc import Iterable

__all__ = ["did_you_mean", "nearest_name"]

_LIKENESS = 0.6  # of two names, from 0 to 1: below it a suggestion is a guess


def nearest_name(word: object, names: Iterable[str]) -> str | None:
    """The name that is most like `word`, whatever the case of its letters; None if none is like it.

    Args:
        word: What was given.
        names: What is allowed. The last part of a name with dots is like the name.
    """
    from difflib import get_close_matches  # only a mistake needs it

    spelt: dict[str, str] = {}
    for name in (names := list(names)):
        spelt.setdefault(_plain(name), name)
    for name in names:
        spelt.setdefault(_plain(name).rpartition(".")[2], name)
    close = get_close_matches(_plain(str(word)), spelt, n=1, cutoff=_LIKENESS)
    return spelt[close[0]] if close else None


def did_you_mean(word: object, names: Iterable[str]) -> str:
    """The words ` (did you mean 'NAME'?)` with the nearest name; empty if none is like it."""
    nearest = nearest_name(word, names)
    return "" if nearest is None else f" (did you mean {nearest!r}?)"


def _plain(text: str) -> str:
    return text.strip().lower().replace("_", "-")
