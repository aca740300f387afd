"""The id of a case: written, read, and explained."""

import re
from typing import Any

from equivcheck.cases.fields import DECIMAL, FIELDS, NUMBER
from equivcheck.cases.simplifying import Changes

__all__ = ["id_of", "in_words", "legend", "parse_id"]

_BY_NAME = {field.name: field for field in FIELDS}


def _pattern() -> re.Pattern[str]:
    """The regular expression of all ids: the fields in order; those that appear together are one optional part."""
    parts: list[tuple[str, str]] = []
    for field in FIELDS:
        part = f"-{re.escape(field.letter)}(?P<{field.name}>{field.pattern})"
        if parts and field.shown_with and parts[-1][0] == field.shown_with:
            parts[-1] = (field.shown_with, parts[-1][1] + part)
        else:
            parts.append((field.shown_with, part))
    return re.compile("".join(f"(?:{part})?" if shown_with else part for shown_with, part in parts).removeprefix("-"))


_ID = _pattern()


def id_of(case: Any, defaults: Changes) -> str:
    """The case in one word."""
    return "-".join(
        f"{field.letter}{field.write(getattr(case, field.name))}"
        for field in FIELDS
        if not field.shown_with or getattr(case, field.shown_with) != defaults[field.shown_with]
    )


def parse_id(text: str) -> Changes | None:
    """The values of the fields in an id; None if `text` is no id. A ValueError for a malformed number."""
    match = _ID.fullmatch(text)
    if match is None:
        return None
    return {name: _BY_NAME[name].read(value) for name, value in match.groupdict().items() if value is not None}


def in_words(text: str) -> list[tuple[str, str, str]]:
    """The parts of an id in their order, each with the name and the meaning of its field.

    Args:
        text: An id.

    Returns:
        An empty list if it is no id.
    """
    match = _ID.fullmatch(text)
    values = {} if match is None else match.groupdict()
    return [
        (f"{field.letter}{values[field.name]}", field.name, field.meaning)
        for field in FIELDS
        if values.get(field.name) is not None
    ]


def legend() -> list[tuple[str, str]]:
    """The form of each field in an id, and its meaning."""
    rows = []
    for field in FIELDS:
        value = "N" if field.pattern in (NUMBER, DECIMAL) else field.pattern if field.pattern.isalpha() else field.name
        if field.allowed:
            value = "|".join(word for word in field.allowed if word)
        rows.append((f"{field.letter}{value}", field.meaning))
    return rows
