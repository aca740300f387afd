"""The command `verify`: it judges a pair."""

import signal
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from equivcheck.cases.domain import require_grammar
from equivcheck.cli import config as configuration
from equivcheck.cli.closing import closed
from equivcheck.cli.command import Command
from equivcheck.cli.events import Events, with_events
from equivcheck.cli.mistakes import refuse_mistakes
from equivcheck.cli.options import (
    device_of,
    domain_option,
    first,
    import_from_here,
    memory_option,
    of_a_pair,
    output_files,
    output_options,
    pair_of,
    show_text,
    user_functions,
)
from equivcheck.cli.ray_workers import address_from, options_given, report_from_ray, workers_option
from equivcheck.cli.shard import refuse_contradictions, shard_from
from equivcheck.cli.values import CHECK, LEVEL_LIST, Amount, Choice, size, whole
from equivcheck.errors import UsageError
from equivcheck.report import streams
from equivcheck.report.deviations import parse_deviations
from equivcheck.report.levels import levels_of
from equivcheck.report.outputs import Outputs

if TYPE_CHECKING:
    from equivcheck.report.model import Report

__all__ = ["verify"]


@click.command(
    cls=Command,
    short_help="Verify a candidate against the original.",
    examples=(
        "equivcheck verify pkg.slow:Attention pkg.fast:Attention",
        "equivcheck verify slow.py:Attention fast.py:Attention --check output --gpu",
        "equivcheck verify pkg.slow:f pkg.fast:f --profile quick --report build/report",
    ),
)
@of_a_pair
@click.option("--profile", type=Choice(configuration.PROFILES), help="How many cases.  [default: gate]")
@click.option("--exclude", type=CHECK, metavar="NAME", multiple=True, help="Every check but this one; may be repeated.")
@click.option("--seed", type=whole(0, configuration.LARGEST_SEED), metavar="N", help="[default: 0]")
@click.option(
    "--max-seconds",
    type=Amount("seconds"),
    metavar="S",
    help="End after so many seconds, if need be with a partial report.",
)
@click.option(
    "--require",
    type=LEVEL_LIST,
    metavar="LEVEL[,LEVEL]",
    help="The levels that must be equivalent.  [default: all; values,training for functions]",
)
@memory_option
@domain_option
@click.option("--strict", is_flag=True, help="Fail if the candidate refuses a transform or a dtype, too.")
@click.option("--all", "all_cases", is_flag=True, help="Run all cases of every check after a difference, too.")
@click.option("--shard", metavar="I/N", help="Only part I of N, with --all; equivcheck merge makes one report of all.")
@workers_option("Each of several parts of the run")
@click.option("--fail-fast", is_flag=True, help="End at the first difference at a required level.")
@click.option("--profile-run/--no-profile-run", default=None, help="Say where the time of the run went.")
@click.option("--no-remembered", is_flag=True, help="Neither run nor keep counterexamples in .equivcheck/.")
@click.option("--jobs", type=whole(1, 64), metavar="N", help="Processes.  [default: as suits the machine]")
@click.option(
    "--case-seconds",
    type=Amount("seconds"),
    metavar="S",
    help="End a case after so many seconds.  [default: 60, or 20 times the slowest so far]",
)
@click.option(
    "--worker-memory", metavar="SIZE", help="Memory of a process, as 8GiB.  [default: 80 % of the free memory]"
)
@click.option("--setup", metavar="FUNCTION", help="Call this in each process first: an import string.")
@click.option("--deviation", "deviations", metavar="NAME=REASON", multiple=True, help="A wanted difference.")
@output_options
@with_events
@click.pass_context
def verify(
    context: click.Context,
    /,
    pair: tuple[str, ...],
    kind: str | None,
    gpu: bool,
    device: str | None,
    checks: tuple[str, ...],
    require_backend: tuple[str, ...],
    max_memory_ratio: float | None,
    profile: str | None,
    exclude: tuple[str, ...],
    seed: int | None,
    max_seconds: float | None,
    jobs: int | None,
    case_seconds: float | None,
    worker_memory: str | None,
    setup: str | None,
    deviations: tuple[str, ...],
    strict: bool,
    all_cases: bool,
    shard: str | None,
    workers: str | None,
    fail_fast: bool,
    profile_run: bool | None,
    no_remembered: bool,
    require: str | None,
    domain: str | None,
    folder: Path | None,
    events: Events | None,
    **given: Any,
) -> int:
    """Verify CANDIDATE against REFERENCE, or the pair that ships.

    Each is package.module:name or path/to/file.py:name. Defaults are read from [tool.equivcheck] in the pyproject.toml
    of the current folder.
    """
    config = configuration.load(Path("pyproject.toml"))
    levels = levels_of(require)
    declared = {**config.deviations, **dict(map(configuration.deviation, deviations))}
    parse_deviations(declared)  # a wrong one is refused before anything is loaded
    meant = first(domain, config.domain)
    require_grammar(meant)
    files = output_files(given)
    functions = user_functions(pair, given, config)
    reference, candidate = pair_of(pair, config)
    options: dict[str, Any] = {
        "kind": first(kind, config.kind, "auto"),
        "device": device_of(gpu, device, config),
        "profile": first(profile, config.profile, "gate"),
        "seed": first(seed, config.seed, 0),
        "strict": strict,
    }
    part = shard_from(shard, profile=options["profile"], fail_fast=fail_fast)
    address = address_from(workers, device=options["device"])
    if address is not None:
        refuse_contradictions(f"--workers {workers}", profile=options["profile"], fail_fast=fail_fast)
        if part is not None:
            raise UsageError(f"--shard {shard} with --workers {workers}: it cuts the run itself; leave one of them out")
    outputs = Outputs(files=files, folder=folder)
    outputs.probe()
    import_from_here()
    memory = size("--worker-memory", worker_memory)
    left_out, prepare = exclude or config.exclude, first(setup, config.setup)
    limit = first(max_memory_ratio, config.max_memory_ratio)
    refuse_mistakes(
        reference,
        candidate,
        kind=options["kind"],
        device=options["device"],
        checks=checks,
        exclude=left_out,
        require_backend=require_backend,
        max_memory_ratio=limit,
        functions=functions,
        setup=prepare,
    )
    if events is not None:
        events.started(outputs, reference=reference, candidate=candidate, **options)
    nothing = _nothing_yet(reference, candidate, options, part)
    outputs.begin(nothing)
    keep: Callable[[Report], None] = outputs.keep if outputs else lambda report: None

    from equivcheck.cli.progress import follow
    from equivcheck.supervisor import api, nurseries
    from equivcheck.supervisor.request import Request
    from equivcheck.supervisor.sealed import NamedPair

    kind, where = options.pop("kind"), options.pop("device")
    try:
        if address is not None:
            words = options_given(context)
            report = report_from_ray(address, words, pair, device=where, jobs=jobs, nothing=nothing, keep=keep)
            return _ended(report, outputs, events)
        nurseries.start()  # in parallel to the lines below
        with follow(streams.current().notes()) as listener:
            report = api.verify(
                NamedPair(reference, candidate, kind, where, functions, prepare, meant),
                Request(
                    **options,
                    checks=checks or None,
                    exclude=left_out,
                    dtypes=configuration.DTYPES,
                    require_backend=require_backend,
                    max_memory_ratio=limit,
                    deviations=declared,
                    max_seconds=first(max_seconds, config.max_seconds),
                    jobs=jobs,
                    case_seconds=first(case_seconds, config.case_seconds),
                    worker_memory=memory,
                    require=first(levels, config.require),
                    domain=meant,
                    all_cases=all_cases or part is not None,
                    fail_fast=fail_fast,
                    profile_run=first(profile_run, config.profile_run, False),
                    # a report in a file is evidence: it is the same in every folder
                    remembered=not no_remembered and not outputs and part is None and first(config.remembered, True),
                    shard=part,
                ),
                listener=listener if events is None else events.around(listener),
                keep=keep,
                signals=(signal.SIGINT, signal.SIGTERM),
            )
    except UsageError:
        outputs.undo()
        raise
    return _ended(report, outputs, events)


def _ended(report: "Report", outputs: Outputs, events: Events | None) -> int:
    if events is not None:
        events.report = report
    return closed(report, outputs, partial(_show_time_spent, report), shows=events is None)


def _show_time_spent(report: "Report") -> None:
    from equivcheck.report import time_table

    if report.time_spent is not None:
        show_text("".join(f"{line}\n" for line in ["", *time_table.lines(report.time_spent)]))


def _nothing_yet(reference: str, candidate: str, options: Mapping[str, Any], shard: tuple[int, int] | None) -> "Report":
    """The partial report of a run that has not loaded its pair."""
    from equivcheck.report.model import Report, Sensitivity
    from equivcheck.report.shard import Shard

    return Report(
        reference=reference,
        candidate=candidate,
        results=(),
        sensitivity=Sensitivity(),
        complete=False,
        seconds=0.0,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        shard=None if shard is None else Shard(*shard),
        **options,
    )
