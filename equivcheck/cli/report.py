"""The command `report`: it renders a saved report again."""

from functools import partial
from pathlib import Path

import click

from equivcheck.cli.command import Command
from equivcheck.cli.options import show, show_text
from equivcheck.cli.values import FILE, Choice
from equivcheck.errors import UsageError
from equivcheck.report.outputs import FORMATS, format_named

__all__ = ["report"]


@click.command(
    cls=Command,
    short_help="Show a saved report again, in any form.",
    examples=(
        "equivcheck report report.json",
        "equivcheck report report.json --format html --out report.html",
        "equivcheck report report.json --format html --bench speed.json --out report.html",
    ),
)
@click.argument("file", type=FILE)
@click.option("--format", "name", type=Choice([f.name for f in FORMATS if f.again]), default=FORMATS[0].name)
@click.option("--bench", type=FILE, metavar="FILE", help="Show this record of speed in the page.")
@click.option("--out", type=FILE, metavar="FILE", help="Write it to FILE, not to standard output.")
def report(file: Path, name: str, bench: Path | None, out: Path | None) -> int:
    """Render the report that `verify --json` wrote to FILE; the exit status is 0 whatever its verdict.

    A record of speed is a file of `equivcheck bench --json` or `pytest --benchmark-json`.
    """
    from equivcheck.report import codec, timings
    from equivcheck.report.places import place_of

    form = format_named(name)
    if bench is not None and not form.speed:
        page = next(f.name for f in FORMATS if f.speed)
        raise UsageError(f"--bench with --format {name}: only a page shows speed; add --format {page}")
    place = None if out is None else place_of("--out", out).probe()
    saved = codec.read(file)
    shown = form.on_stream()
    if place is None and shown is not None:
        show(partial(shown, saved))
        return 0
    text = form.function()(saved, timings.read(bench)) if bench is not None else form.function()(saved)
    if place is None:
        show_text(text)
    else:
        place.save(text)
    return 0
