"""The command `bench`: a pair's time and memory as a table, as JSON and as plots, and a gate on their growth."""

from pathlib import Path

import click

from equivcheck.bench.presets import DTYPES, PRESETS
from equivcheck.cli import config as configuration
from equivcheck.cli.command import Command
from equivcheck.cli.mistakes import refuse_mistakes
from equivcheck.cli.options import (
    NOT_JUDGED,
    device_of,
    device_options,
    first,
    import_from_here,
    pair_of,
    show_text,
)
from equivcheck.cli.progress import follow_rows
from equivcheck.cli.values import FILE, FOLDER, SIDE, Amount, Choice
from equivcheck.errors import UsageError
from equivcheck.report import streams
from equivcheck.runtime import working_folder

__all__ = ["bench"]


@click.command(
    cls=Command,
    short_help="Measure time and memory of a pair, in turn.",
    examples=(
        "equivcheck bench",
        "equivcheck bench pkg.slow:Attention pkg.fast:Attention --gpu --json speed.json",
        "equivcheck bench --against speed.json --tripwire 10",
    ),
)
@click.argument("pair", nargs=-1, type=SIDE, metavar="[REFERENCE CANDIDATE]")
@click.option("--kind", type=Choice(configuration.KINDS), help="The kind of the pair.  [default: auto]")
@device_options
@click.option("--preset", type=Choice(list(PRESETS)), help="The sizes.  [default: small on a CPU, guide on CUDA]")
@click.option("--dtype", "dtypes", type=Choice(DTYPES), multiple=True, help="Only this one; may be repeated.")
@click.option(
    "--max-seconds", type=Amount("seconds"), metavar="S", help="Time limit of all rows together.  [default: 45]"
)
@click.option("--json", "json_file", type=FILE, metavar="FILE", help="Write the record as JSON.")
@click.option("--plots", type=FOLDER, metavar="DIR", help="Write speed.svg, memory.svg, speed.md.")
@click.option("--against", type=FILE, metavar="FILE", help="End with 1 if slower than in this record.")
@click.option(
    "--tripwire",
    type=Amount("percent"),
    metavar="PERCENT",
    help="The slowdown that is allowed.  [default: 25]",
)
def bench(
    pair: tuple[str, ...],
    kind: str | None,
    gpu: bool,
    device: str | None,
    preset: str | None,
    dtypes: tuple[str, ...],
    max_seconds: float | None,
    json_file: Path | None,
    plots: Path | None,
    against: Path | None,
    tripwire: float | None,
) -> int:
    """Time and memory of REFERENCE and CANDIDATE, or of the pair that ships, measured in turn.

    --against FILE compares the ratio of the two with a record of the same device and torch. Exit status 1: the
    candidate has become slower than the tripwire allows, in two measurements; 2: the two records cannot be compared.
    """
    config = configuration.load(Path("pyproject.toml"))
    reference, candidate = pair_of(pair, config)
    where = device_of(gpu, device, config)
    if tripwire is not None and against is None:
        raise UsageError("--tripwire without --against: there is no record to be slower than; give one")
    import_from_here()
    kind = first(kind, config.kind, "auto")
    refuse_mistakes(reference, candidate, kind=kind, device=where, functions={})

    from equivcheck.bench import record as records
    from equivcheck.bench import render
    from equivcheck.bench import runner as benching
    from equivcheck.report.places import place_of
    from equivcheck.runtime.device import device_name, find_device

    place = None if json_file is None else place_of("--json", json_file).probe()
    pages = None
    if plots is not None:
        render.plotting()
        pages = place_of("--plots", plots, folder=True).probe(folder=True)
    before = None if against is None else records.read(against)
    if before is not None:  # before anything is measured
        import torch

        name = device_name(find_device(where))
        records.comparable(before, device=name, torch_version=torch.__version__, where=str(against))
        preset = preset or before.preset

    seconds = first(max_seconds, benching.MAX_SECONDS)

    def measure(only: list[str] | None = None) -> records.Record:
        with streams.captured(), working_folder.preserved(), follow_rows(streams.current().notes()) as listener:
            return benching.bench(
                reference,
                candidate,
                kind=kind,
                device=where,
                preset=preset,
                dtypes=dtypes,
                max_seconds=seconds,
                only=only,
                on_progress=listener,
            )

    record = measure()
    if place is not None:
        place.save(records.dumps(record))
    if pages is not None:
        render.plot(record, pages.path)
        pages.beside("speed.md").save(render.markdown(record))
    show_text(render.plain(record))
    if before is None:
        return 0 if record.complete else NOT_JUDGED
    percent = first(tripwire, records.TRIPWIRE)
    slower, unclear = benching.against(before, record, str(against), percent, measure)
    lines = [f"slower: {line}" for line in slower] or [f"no row is more than {percent:g} % slower than in {against}"]
    lines += unclear
    show_text("\n".join(lines) + "\n")
    return 1 if slower else 0 if record.complete else NOT_JUDGED
