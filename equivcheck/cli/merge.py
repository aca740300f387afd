"""The command `merge`: it makes one report of those of all shards of a run."""

from pathlib import Path
from typing import Any

import click

from equivcheck.cli.closing import closed
from equivcheck.cli.command import Command
from equivcheck.cli.options import output_files, output_options, show_text
from equivcheck.cli.values import FILE
from equivcheck.report.outputs import Outputs

__all__ = ["merge"]


@click.command(
    cls=Command,
    short_help="Make one report of those of all shards.",
    examples=(
        "equivcheck merge shard-1.json shard-2.json",
        "equivcheck merge shards/*.json --report build/report",
    ),
)
@click.argument("reports", nargs=-1, required=True, type=FILE, metavar="REPORT...")
@output_options
def merge(reports: tuple[Path, ...], folder: Path | None, **given: Any) -> int:
    """Make the report of the whole run of those of its shards, which `verify --shard I/N --json REPORT` wrote.

    It equals that of a run without --shard, and so does the exit status. Whether planted faults were noticed is judged
    over all shards. The report is partial if a shard is missing, is there twice, or was cut short. Reports of different
    runs are refused. Nothing is run.
    """
    from equivcheck.report import codec
    from equivcheck.supervisor.merging import merged

    outputs = Outputs(files=output_files(given), folder=folder)
    outputs.probe()
    whole = merged([(str(file), codec.read(file)) for file in reports])
    show_text("".join(f"{gap}\n" for gap in whole.gaps))
    return closed(whole.report, outputs)
