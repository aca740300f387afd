"""The command `judge`: many candidates for one original, each judged by itself, and ranked by time."""

import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from equivcheck.cases.domain import require_grammar
from equivcheck.cli import config as configuration
from equivcheck.cli.command import Command
from equivcheck.cli.mistakes import refuse_mistakes
from equivcheck.cli.options import (
    device_of,
    domain_option,
    file_option,
    first,
    import_from_here,
    options_of_a_pair,
    show_text,
)
from equivcheck.cli.ray_workers import address_from, judged_on_ray, options_given, workers_option
from equivcheck.cli.values import CHECK, LEVEL_LIST, SIDE, Amount, Choice, whole
from equivcheck.errors import UsageError
from equivcheck.report import streams
from equivcheck.report.deviations import parse_deviations
from equivcheck.report.judged import FEEDBACK, Judged, dumps, status_of
from equivcheck.report.levels import levels_of
from equivcheck.report.places import place_of

__all__ = ["judge"]

_TIMING_S = 5.0


@click.command(
    cls=Command,
    short_help="Judge many candidates, and rank them by time.",
    examples=(
        "equivcheck judge pkg.slow:Attention pkg.fast:Attention pkg.faster:Attention",
        "equivcheck judge pkg.slow:Attention candidates/ --profile quick --json judged.json",
        "equivcheck judge pkg.slow:Attention - --name Attention --feedback verdict",
    ),
)
@click.argument("original", type=SIDE)
@click.argument("candidates", nargs=-1, type=SIDE, required=True, metavar="CANDIDATE...")
@options_of_a_pair
@click.option("--name", metavar="NAME", help="The candidate's name in each file.  [default: the obvious one]")
@click.option("--profile", type=Choice(configuration.PROFILES), help="How many cases.  [default: gate]")
@click.option("--exclude", type=CHECK, metavar="NAME", multiple=True, help="Every check but this one; may be repeated.")
@click.option("--seed", type=whole(0, configuration.LARGEST_SEED), metavar="N", help="[default: 0]")
@click.option("--max-seconds", type=Amount("seconds"), metavar="S", help="End the run of each candidate after S.")
@click.option(
    "--require",
    type=LEVEL_LIST,
    metavar="LEVEL[,LEVEL]",
    help="The levels that must be equivalent.  [default: as in verify]",
)
@domain_option
@click.option("--strict", is_flag=True, help="Fail a candidate that refuses a transform or a dtype, too.")
@click.option("--fail-fast", is_flag=True, help="End a candidate's run at its first difference at a required level.")
@click.option("--jobs", type=whole(1, 64), metavar="N", help="Processes of a run.  [default: as suits the machine]")
@click.option("--case-seconds", type=Amount("seconds"), metavar="S", help="End a case after so many seconds.")
@workers_option("Each candidate")
@click.option("--timing-seconds", type=Amount("seconds"), metavar="S", help="For the times of one.  [default: 5]")
@click.option(
    "--feedback",
    type=Choice(FEEDBACK),
    default="full",
    help="What is shown of differences: nothing, which levels and checks, or all.  [default: full]",
)
@file_option("--json", "json_file", "FILE", "Write an entry for each candidate as JSON; - is standard output.")
@click.pass_context
def judge(
    context: click.Context,
    /,
    original: str,
    candidates: tuple[str, ...],
    kind: str | None,
    gpu: bool,
    device: str | None,
    checks: tuple[str, ...],
    require_backend: tuple[str, ...],
    name: str | None,
    profile: str | None,
    exclude: tuple[str, ...],
    seed: int | None,
    max_seconds: float | None,
    require: str | None,
    domain: str | None,
    strict: bool,
    fail_fast: bool,
    jobs: int | None,
    case_seconds: float | None,
    workers: str | None,
    timing_seconds: float | None,
    feedback: str,
    json_file: Path | None,
    **adaptation: str | None,
) -> int:
    """Judge each CANDIDATE against ORIGINAL as `verify` does, and rank those that are equivalent by time.

    A CANDIDATE is an import string, a Python file, a folder of them, or - for lines on standard input. One that crashes,
    hangs or cannot be imported costs its own verdict only. Exit status 0: all are equivalent; 1: one is different or
    insensitive; 2: one could not be judged.
    """
    config = configuration.load(Path("pyproject.toml"))
    levels = levels_of(require)
    parse_deviations(config.deviations)  # a wrong one is refused before anything is loaded
    meant = first(domain, config.domain)
    require_grammar(meant)
    functions = {option: value for option, value in adaptation.items() if value is not None}
    where, kind = device_of(gpu, device, config), first(kind, config.kind, "auto")
    address = address_from(workers, device=where)
    place = None if json_file is None else place_of("--json", json_file).probe()
    import_from_here()
    refuse_mistakes(
        original,
        original,
        kind=kind,
        device=where,
        checks=checks,
        exclude=exclude,
        require_backend=require_backend,
        functions=functions,
        setup=config.setup,
    )

    from equivcheck.cli.candidates import candidates_of, lines_of
    from equivcheck.report import judged_table
    from equivcheck.supervisor import nurseries
    from equivcheck.supervisor.candidates import Given, judge_each
    from equivcheck.supervisor.listener import Silence
    from equivcheck.supervisor.request import Request
    from equivcheck.supervisor.sealed import NamedPair

    if address is None:
        nurseries.start()  # in parallel to the lines below
    notes = streams.current().notes()
    request = Request(
        profile=first(profile, config.profile, "gate"),
        checks=checks or None,
        exclude=exclude or config.exclude,
        seed=first(seed, config.seed, 0),
        dtypes=configuration.DTYPES,
        require_backend=require_backend,
        deviations=config.deviations,
        strict=strict,
        max_seconds=first(max_seconds, config.max_seconds),
        jobs=jobs,
        case_seconds=first(case_seconds, config.case_seconds),
        require=first(levels, config.require),
        domain=meant,
        fail_fast=fail_fast,
    )
    pair = NamedPair(original, "", kind, where, functions, config.setup, meant)
    given: Iterable[Given] = candidates_of(
        candidates,
        name=name,
        like=original.rpartition(":")[2],
        lines=lines_of(getattr(sys.stdin, "buffer", None)),
    )
    judged: list[Judged] = []
    places: dict[str, int] = {}
    if address is not None:
        given = list(given)
        places = {one.text: number for number, one in enumerate(given)}
        each = judged_on_ray(address, options_given(context), original, given, device=where, jobs=jobs)
    else:
        each = judge_each(
            pair,
            request,
            given,
            listener=Silence(),
            timing_seconds=first(timing_seconds, _TIMING_S),
            signals=(signal.SIGINT, signal.SIGTERM),
        )

    complete = True
    try:
        for one in each:
            judged.append(one)
            notes.write(f"{judged_table.line(one, len(judged), feedback)}\n")
            notes.flush()
    except KeyboardInterrupt:  # also while the next line of standard input is waited for
        complete = False
    judged.sort(key=lambda one: places.get(one.given, 0))  # those of Ray are in the order in which they were done
    if not judged and complete:
        raise UsageError("no candidate was given: standard input has no line with one")
    if place is not None:
        place.save(dumps(original, judged, feedback, complete=complete))
    show_text(judged_table.plain(original, judged, feedback, complete=complete))
    return status_of(judged, complete=complete)
