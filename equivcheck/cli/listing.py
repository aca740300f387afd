"""Rows that a command lists, in aligned columns or as JSON."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

from equivcheck.cli.options import show_text
from equivcheck.cli.values import Choice
from equivcheck.report.catalogue import KINDS
from equivcheck.report.clean_text import one_line
from equivcheck.report.levels import LEVELS

__all__ = ["list_rows", "listing_options"]

F = TypeVar("F", bound=Callable[..., Any])


def listing_options(command: F) -> F:
    """Give `command` the options `--kind`, `--level` and `--format`."""
    for decorate in (
        click.option(
            "--format", "form", type=Choice(("text", "json")), default="text", help="Columns, or a list of objects."
        ),
        click.option("--level", type=Choice(LEVELS), help="Only those that look at this level."),
        click.option("--kind", type=Choice(KINDS), help="Only those for pairs of this kind."),
    ):
        command = decorate(command)
    return command


def list_rows(rows: Sequence[Mapping[str, Any]], form: str, *, total: int) -> None:
    """Show rows that have the same keys.

    Args:
        rows: The rows; a list of words is one cell with commas between them.
        form: `text` or `json`.
        total: The number of rows that there are without a selection.
    """
    if form == "json":
        show_text(json.dumps(list(rows), indent=2, ensure_ascii=False) + "\n")
        return
    lines = [[_cell(value) for value in row.values()] for row in rows]
    headings = [name.replace("_", " ") for name in rows[0]] if rows else []
    widths = [max(map(len, column)) for column in zip(headings, *lines, strict=True)]
    aligned = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    heading = "  ".join(name.ljust(width) for name, width in zip(headings, widths, strict=True))
    show_text("".join(f"{line.rstrip()}\n" for line in (*([heading] if rows else []), *aligned)))
    show_text(f"\n{len(rows)} of {total}\n" if rows else f"none of {total}\n")


def _cell(value: Any) -> str:
    return one_line(value if isinstance(value, str) else ", ".join(value)) or "-"
