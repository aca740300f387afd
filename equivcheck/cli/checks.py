"""The command `checks`: the checks with their levels, kinds and what they look at."""

from collections.abc import Sequence
from typing import Any

import click

from equivcheck.cli.command import Command
from equivcheck.cli.listing import list_rows, listing_options
from equivcheck.report.catalogue import CATALOGUE, KINDS, Listed
from equivcheck.report.check_summaries import LOOKS_AT

__all__ = ["checks"]


@click.command(
    cls=Command,
    short_help="List the checks.",
    examples=(
        "equivcheck checks",
        "equivcheck checks --kind function --level training",
        "equivcheck checks --format json",
    ),
)
@listing_options
def checks(kind: str | None, level: str | None, form: str) -> int:
    """List the checks in the order of a run, with what each looks at: --check and --exclude take the names.

    A check with several levels has findings that count apart. One without a level records, and fails at none.
    """
    chosen = [c for c in CATALOGUE if (kind is None or kind in c.kinds) and (level is None or level in c.levels)]
    list_rows([_row(check, form) for check in chosen], form, total=len(CATALOGUE))
    return 0


def _row(check: Listed, form: str) -> dict[str, Any]:
    levels: Sequence[str] = check.levels
    kinds: Sequence[str] = ("all",) if form == "text" and set(check.kinds) == set(KINDS) else check.kinds
    return {"name": check.name, "levels": levels, "kinds": kinds, "looks_at": LOOKS_AT[check.name]}
