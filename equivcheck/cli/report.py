"""The command `report`: a saved report, rendered again."""

from functools import partial
from pathlib import Path

import click

from equivcheck.cli.options import show, show_text
from equivcheck.errors import UsageError

__all__ = ["report"]


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(("table", "markdown", "html", "junit")), default="table")
@click.option("--bench", type=click.Path(path_type=Path), metavar="FILE", help="Show this record of speed in the page.")
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="FILE", help="Write it to FILE, not to standard output."
)
def report(file: Path, form: str, bench: Path | None, out: Path | None) -> int:
    """Render the report that `verify --json` wrote to FILE; the exit status is 0 whatever its verdict.

    A record of speed is a file of `equivcheck bench --json` or `pytest --benchmark-json`.
    """
    from equivcheck.report import codec, html, junit, markdown, table, timings
    from equivcheck.report.places import place_of

    if bench is not None and form != "html":
        raise UsageError(f"--bench with --format {form}: only a page shows speed; add --format html")
    place = None if out is None else place_of("--out", out).probe()
    saved = codec.read(file)
    if place is None and form == "table":
        show(partial(table.show, saved))
        return 0
    if form == "html":
        text = html.render(saved, timings.read(bench) if bench is not None else None)
    else:
        text = {"table": table.plain, "markdown": markdown.render, "junit": junit.render}[form](saved)
    if place is None:
        show_text(text)
    else:
        place.save(text)
    return 0
