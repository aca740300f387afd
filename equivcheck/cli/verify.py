"""The commands `verify` and `replay`: they judge a pair, and show one case of it in full detail."""

import signal
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from equivcheck.cases.domain import require_grammar
from equivcheck.cli import config as configuration
from equivcheck.cli.options import (
    NOT_JUDGED,
    Amount,
    device_of,
    first,
    import_from_here,
    of_a_pair,
    output_files,
    output_options,
    pair_of,
    show,
    show_text,
    size,
    user_functions,
    whole,
)
from equivcheck.errors import UsageError
from equivcheck.report import streams
from equivcheck.report.deviations import parse_deviations
from equivcheck.report.levels import levels_of
from equivcheck.report.outputs import Outputs
from equivcheck.runtime.import_strings import refuse_misspelt

if TYPE_CHECKING:
    from equivcheck.report.model import Report

__all__ = ["replay", "verify"]

_STATUS = {
    "equivalent": 0,
    "different": 1,
    "insensitive": 1,
}  # any other verdict means that the pair could not be judged


_DOMAIN = click.option("--domain", metavar="EXPR", help="Where the original is meant to run: 'head_size in (64, 128)'.")


@click.command()
@of_a_pair
@click.option("--profile", type=click.Choice(configuration.PROFILES), help="How many cases.  [default: gate]")
@click.option("--exclude", metavar="NAME", multiple=True, help="Every check but this one; may be repeated.")
@click.option("--seed", type=whole(0, configuration.LARGEST_SEED), metavar="N", help="[default: 0]")
@click.option(
    "--max-seconds",
    type=Amount("seconds"),
    metavar="S",
    help="End after so many seconds, if need be with a partial report.",
)
@click.option(
    "--require",
    metavar="LEVEL[,LEVEL]",
    help="The levels that must be equivalent.  [default: all; values,training for functions]",
)
@_DOMAIN
@click.option("--strict", is_flag=True, help="Fail if the candidate refuses a transform or a dtype, too.")
@click.option("--all", "all_cases", is_flag=True, help="Run all cases of every check after a difference, too.")
@click.option("--fail-fast", is_flag=True, help="End at the first difference at a required level.")
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
def verify(
    pair: tuple[str, ...],
    kind: str | None,
    gpu: bool,
    device: str | None,
    checks: tuple[str, ...],
    require_backend: tuple[str, ...],
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
    fail_fast: bool,
    no_remembered: bool,
    require: str | None,
    domain: str | None,
    folder: Path | None,
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
    outputs = Outputs(files=files, folder=folder)
    outputs.probe()
    outputs.begin(_nothing_yet(reference, candidate, options))
    import_from_here()

    from equivcheck.cli.progress import follow
    from equivcheck.report import github, table
    from equivcheck.supervisor import api, nurseries
    from equivcheck.supervisor.request import Request
    from equivcheck.supervisor.sealed import NamedPair

    kind, where = options.pop("kind"), options.pop("device")
    try:
        refuse_misspelt(reference, candidate)
        nurseries.start()  # in parallel to the lines below
        with follow(streams.current().notes()) as listener:
            report = api.verify(
                NamedPair(reference, candidate, kind, where, functions, first(setup, config.setup), meant),
                Request(
                    **options,
                    checks=checks or None,
                    exclude=exclude or config.exclude,
                    dtypes=configuration.DTYPES,
                    require_backend=require_backend,
                    deviations=declared,
                    max_seconds=first(max_seconds, config.max_seconds),
                    jobs=jobs,
                    case_seconds=first(case_seconds, config.case_seconds),
                    worker_memory=size("--worker-memory", worker_memory),
                    require=first(levels, config.require),
                    domain=meant,
                    all_cases=all_cases,
                    fail_fast=fail_fast,
                    # a report in a file is evidence: it is the same in every folder
                    remembered=not no_remembered and not outputs and first(config.remembered, True),
                ),
                listener=listener,
                keep=outputs.keep if outputs else lambda report: None,
                signals=(signal.SIGINT, signal.SIGTERM),
            )
    except UsageError:
        outputs.undo()
        raise
    failure = outputs.write(report)  # before the table: the files are there even if a reader closes the pipe early
    show(partial(table.show, report))
    failure = failure or outputs.summary(report)
    if outputs.on_github:
        show_text("".join(f"{line}\n" for line in github.annotations(report)))
    if failure is not None:
        raise failure
    return 1 if report.verdict == "unsupported" else _STATUS.get(report.verdict, NOT_JUDGED)


def _nothing_yet(reference: str, candidate: str, options: Mapping[str, Any]) -> "Report":
    """The partial report of a run that has not loaded its pair."""
    from equivcheck.report.model import Report, Sensitivity

    return Report(
        reference=reference,
        candidate=candidate,
        results=(),
        sensitivity=Sensitivity(),
        complete=False,
        seconds=0.0,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        **options,
    )


@click.command()
@click.argument("case_id")
@click.option("--in-process", is_flag=True, help="Run the pair in this process, with its streams: for debuggers.")
@_DOMAIN
@of_a_pair
def replay(
    case_id: str,
    in_process: bool,
    domain: str | None,
    pair: tuple[str, ...],
    kind: str | None,
    gpu: bool,
    device: str | None,
    checks: tuple[str, ...],
    require_backend: tuple[str, ...],
    **adaptation: str | None,
) -> int:
    """Compare a pair on the one case CASE_ID of a counterexample, and show the comparison of each check that fails."""
    config = configuration.load(Path("pyproject.toml"))
    reference, candidate = pair_of(pair, config)
    where = device_of(gpu, device, config)
    functions = user_functions(pair, adaptation, config)
    kind = first(kind, config.kind, "auto")
    meant = first(domain, config.domain)
    require_grammar(meant)
    import_from_here()
    refuse_misspelt(reference, candidate)

    from equivcheck.report import table

    if in_process:
        from equivcheck.api import replay as judge

        with streams.left_alone():
            results = judge(
                reference,
                candidate,
                case_id,
                kind=kind,
                device=where,
                checks=checks or None,
                require_backend=require_backend,
                domain=meant,
                in_process=True,
                **functions,
            )
    else:
        from equivcheck.supervisor import api
        from equivcheck.supervisor.sealed import NamedPair

        results = api.replay(
            NamedPair(reference, candidate, kind, where, functions, config.setup, meant),
            case_id,
            checks=checks or None,
            require_backend=require_backend,
            case_seconds=config.case_seconds,
            signals=(signal.SIGINT, signal.SIGTERM),
        )
    verdict, text = table.replayed(case_id, results)
    show_text(text)
    return _STATUS.get(verdict, NOT_JUDGED)
