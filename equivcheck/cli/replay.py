"""The command `replay`: it shows one case of a pair in full detail."""

import signal
from pathlib import Path

import click

from equivcheck.cases.domain import require_grammar
from equivcheck.cases.ids import in_words
from equivcheck.cli import config as configuration
from equivcheck.cli.command import Command
from equivcheck.cli.mistakes import refuse_mistakes
from equivcheck.cli.options import (
    NOT_JUDGED,
    device_of,
    domain_option,
    file_option,
    first,
    import_from_here,
    memory_option,
    of_a_pair,
    pair_of,
    show_text,
    user_functions,
)
from equivcheck.errors import UsageError
from equivcheck.report import streams
from equivcheck.report.catalogue import KindOrAuto
from equivcheck.report.places import place_of

__all__ = ["replay"]

_STATUS = {"equivalent": 0, "different": 1}


_CASE = "B1-T3-H1-D4-K4-float32-eval-a0-r0-sharpened-contiguous-s0"


@click.command(
    cls=Command,
    short_help="Show one case of a pair in full detail.",
    examples=(
        f"equivcheck replay {_CASE}",
        f"equivcheck replay {_CASE} --check output",
        f"equivcheck replay {_CASE} --script case.py",
    ),
)
@click.argument("case_id")
@click.option("--in-process", is_flag=True, help="Run the pair in this process, with its streams: for debuggers.")
@file_option("--script", "script_file", "FILE", "Write the first difference of values as a script of torch alone.")
@domain_option
@memory_option
@of_a_pair
def replay(
    case_id: str,
    in_process: bool,
    script_file: Path | None,
    domain: str | None,
    pair: tuple[str, ...],
    kind: KindOrAuto | None,
    gpu: bool,
    device: str | None,
    checks: tuple[str, ...],
    require_backend: tuple[str, ...],
    max_memory_ratio: float | None,
    **adaptation: str | None,
) -> int:
    """Compare a pair on the one case CASE_ID of a counterexample, and show the comparison of each check that fails.

    A script of --script runs without equivcheck: it ends with 1 and `differs`, or with 0 and `agrees`.
    """
    config = configuration.load(Path("pyproject.toml"))
    reference, candidate = pair_of(pair, config)
    where = device_of(gpu, device, config)
    functions = user_functions(pair, adaptation, config)
    kind = first(kind, config.kind, "auto")
    meant = first(domain, config.domain)
    require_grammar(meant)
    if in_process and script_file is not None:
        raise UsageError("--script with --in-process: a script is tried in a process of itself; give one of the two")
    place = None if script_file is None else place_of("--script", script_file).probe()
    import_from_here()
    refuse_mistakes(
        reference,
        candidate,
        kind=kind,
        device=where,
        checks=checks,
        require_backend=require_backend,
        max_memory_ratio=max_memory_ratio,
        functions=functions,
        setup=None if in_process else config.setup,
    )

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
                max_memory_ratio=max_memory_ratio,
                domain=meant,
                in_process=True,
                **functions,
            )
    else:
        from equivcheck.supervisor import api
        from equivcheck.supervisor.sealed import NamedPair

        named = NamedPair(reference, candidate, kind, where, functions, config.setup, meant)
        results = api.replay(
            named,
            case_id,
            checks=checks or None,
            require_backend=require_backend,
            max_memory_ratio=max_memory_ratio,
            case_seconds=config.case_seconds,
            signals=(signal.SIGINT, signal.SIGTERM),
        )
    verdict, text = table.replayed(case_id, results)
    show_text("".join(f"{line}\n" for line in (*_in_words(case_id), "")) + text)
    if place is not None:
        from equivcheck.supervisor.scripts import script_of

        place.save(script_of(named, case_id, results))
    return _STATUS.get(verdict, NOT_JUDGED)


def _in_words(case_id: str) -> list[str]:
    """Each part of the id with its field and meaning, in aligned lines."""
    rows = in_words(case_id)
    widths = [max(map(len, column), default=0) for column in list(zip(*rows, strict=True))[:2]]
    return [f"{part.ljust(widths[0])}  {name.ljust(widths[1])}  {meaning}" for part, name, meaning in rows]
