"""A report as one HTML page that contains everything it shows: it makes no request, and runs no script."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from equivcheck.report import plots
from equivcheck.report.model import Report, Timing
from equivcheck.report.page import view

__all__ = ["render"]


def render(report: Report, performance: Mapping[str, Timing] | None = None) -> str:
    """The report as a page; `performance` has the records of speed, by name.

    Plots need matplotlib (the extra `report`). Without it the page says so, and shows the numbers as a table.
    """
    records = performance or {}
    drawn, missing = plots.draw(records)
    page: str = _template().render(**view(report, records), plots=drawn, missing=missing)
    return page if page.endswith("\n") else page + "\n"


@cache
def _template() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # a late import: --help does not wait for it

    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,  # names, messages and paths come from strangers
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("report.html")
