"""The command `faults`: the faults that a run plants, with the checks that see them."""

from typing import Any

import click

from equivcheck.cli.command import Command
from equivcheck.cli.listing import list_rows, listing_options
from equivcheck.cli.values import CHECK
from equivcheck.report.chosen_checks import expand_families, refuse_unknown_checks

__all__ = ["faults"]


@click.command(
    cls=Command,
    short_help="List the faults that are planted.",
    examples=(
        "equivcheck faults --kind function",
        "equivcheck faults --check dropout",
        "equivcheck faults --level drop-in --format json",
    ),
)
@listing_options
@click.option("--check", "checks", type=CHECK, metavar="NAME", multiple=True, help="Only those that this check sees.")
def faults(kind: str | None, level: str | None, checks: tuple[str, ...], form: str) -> int:
    """List the planted faults by name, with the checks that should see each, the best first.

    A run plants those around an original of its kind that its checks should see. Those `inside` are faults of the
    attention that ships, and are planted where it is the original.
    """
    refuse_unknown_checks(checks)
    seen_by = set(expand_families(checks))

    from equivcheck.faults import AROUND, FAULTS

    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for where, planted in (("around", AROUND), ("inside", FAULTS)):
        for fault in planted:
            row = rows.setdefault(
                (where, fault.name, fault.level, fault.seen_by, fault.summary),
                {
                    "name": fault.name,
                    "where": where,
                    "kinds": [],
                    "level": fault.level,
                    "seen_by": list(fault.seen_by),
                    "summary": fault.summary,
                },
            )
            row["kinds"] += [name for name in fault.around if name not in row["kinds"]]
    chosen = [
        row
        for row in rows.values()
        if (kind is None or kind in row["kinds"])
        and (level is None or level == row["level"])
        and (not seen_by or seen_by & set(row["seen_by"]))
    ]
    list_rows(sorted(chosen, key=lambda row: (row["name"], row["where"])), form, total=len(rows))
    return 0
