"""The types of the values of options and arguments: each refuses what is wrong in one line, and completes in a shell."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from equivcheck.errors import UsageError
from equivcheck.report.catalogue import CATALOGUE, check_names
from equivcheck.report.levels import LEVELS
from equivcheck.runtime.device import DEVICE_TYPES
from equivcheck.runtime.nearest_name import did_you_mean

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    OneOf = click.Choice[str]
    Text = click.ParamType[str]
    Place = click.Path[Path]
else:  # the lowest click has no parameters of types
    OneOf, Text, Place = click.Choice, click.ParamType, click.Path

__all__ = ["CHECK", "DEVICE", "FILE", "FOLDER", "LEVEL_LIST", "SIDE", "Amount", "Choice", "Words", "size", "whole"]

_UNITS = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "tb": 10**12,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
    "tib": 2**40,
    "k": 2**10,
    "m": 2**20,
    "g": 2**30,
}
_SIZE = re.compile(rf"([0-9.]+)\s*({'|'.join(_UNITS)})?", re.IGNORECASE)


class Choice(OneOf):
    """One of a few words; the error for another one ends with the nearest of them."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Take a word that is allowed as it is."""
        if value in self.choices:
            return str(value)
        allowed = ", ".join(map(repr, self.choices))
        self.fail(f"{value!r} is not one of {allowed}{did_you_mean(value, self.choices)}", param, ctx)


class Words(Text):
    """A text that another place judges, of which a shell completes the last word.

    Args:
        name: What it is, for messages.
        words: The words by the options that were given before it.
        separator: What stands between two words, if there may be several.
    """

    def __init__(self, name: str, words: Callable[[dict[str, Any]], Iterable[str]], separator: str = "") -> None:
        self.name, self._words, self._separator = name, words, separator

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Take any text."""
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list["CompletionItem"]:
        """The words that the last one can become; of several that are separated, those that are not there yet."""
        before, separator, last = incomplete.rpartition(self._separator) if self._separator else ("", "", incomplete)
        there = before.split(self._separator) if separator else ()
        words = (word for word in self._words(ctx.params) if word.startswith(last) and word not in there)
        return _items(f"{before}{separator}{word}" for word in words)


class Side(Text):
    """The import string of one side of a pair, of which a shell completes a file."""

    name = "import string"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Take any text."""
        return str(value)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list["CompletionItem"]:
        """Have the shell complete a file."""
        return _items([incomplete], "file")


class Folder(Place):
    """A folder that may not be there yet, of which a shell completes the path."""

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list["CompletionItem"]:
        """Have the shell complete a folder."""
        return _items([incomplete], "dir")


class Amount(click.FloatRange):
    """The type of an option that is a number above 0 of some unit."""

    def __init__(self, unit: str) -> None:
        """Name the unit for the error message."""
        super().__init__(min=0, min_open=True)
        self.name = f"number of {unit}"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Convert as any range does; nan and inf are refused as well."""
        amount = float(super().convert(value, param, ctx))
        if not math.isfinite(amount):
            self.fail(f"{value} is not a finite {self.name}", param, ctx)
        return amount


def whole(least: int, most: int) -> click.IntRange:
    """The type of an option that is a whole number from `least` to `most`."""
    kind = click.IntRange(least, most)
    kind.name = f"whole number from {least} to {most}"  # for the error message
    return kind


def size(option: str, value: str | None) -> float | None:
    """The bytes of a text such as `8GiB` or `500 MB`, None for None; a UsageError for any other text."""
    if value is None:
        return None
    match = _SIZE.fullmatch(value.strip())
    if match is None or float(match[1]) <= 0:
        raise UsageError(f"{option} {value!r}: a size such as 8GiB, 500MB or a number of bytes is allowed")
    return float(match[1]) * _UNITS[(match[2] or "b").lower()]


def _items(values: Iterable[str], kind: str = "plain") -> list["CompletionItem"]:
    from click.shell_completion import CompletionItem

    return [CompletionItem(value, type=kind) for value in values]


def _checks(given: dict[str, Any]) -> Sequence[str]:
    kind = given.get("kind")
    left_out = {check.name for check in CATALOGUE if kind not in (None, "auto", *check.kinds)}
    return [name for name in check_names() if name not in left_out]


CHECK = Words("name of a check", _checks)
DEVICE = Words("device", lambda given: ("auto", *DEVICE_TYPES))
FILE: "click.Path[Path]" = click.Path(path_type=Path)
FOLDER = Folder(path_type=Path)
LEVEL_LIST = Words("levels", lambda given: LEVELS, ",")
SIDE = Side()
