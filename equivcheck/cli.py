"""The command line: `verify`, `replay`, `report`, `gate` and `bench`, with exit statuses that a script can rely on.

0 equivalent; 1 different or insensitive; 2 could not be judged. Whatever goes wrong is told in one line on stderr.
Nothing heavy is imported before the arguments have been read, so that `--help` and a typing mistake answer at once.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from equivcheck import ahead
from equivcheck import config as configuration
from equivcheck.bench_cli import bench
from equivcheck.errors import ToolError, UsageError
from equivcheck.gate_cli import gate
from equivcheck.options import (
    NOT_JUDGED,
    device_of,
    file_option,
    first,
    import_from_here,
    number,
    of_a_pair,
    pair_of,
    said_of,
    seconds,
    show,
    whole,
)
from equivcheck.report_cli import report

__all__ = ["cli", "main"]

_STATUS = {"equivalent": 0, "different": 1, "insensitive": 1}  # a verdict that is not in here could not be judged
_DEBUG = "EQUIVCHECK_DEBUG"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line on `arguments` (None: those of the process) and return the exit status; raises nothing."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # a stream that somebody else has put there
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # see the line above
    try:
        status: int = cli.main(args=arguments, prog_name="equivcheck", standalone_mode=False)
        return status
    except UsageError as error:
        return _say(str(error))
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "equivcheck"
        return _say(f"{error.format_message().rstrip('.')}; see {command} --help")
    except click.ClickException as error:
        return _say(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        return _say("interrupted before there was anything to report")
    except SystemExit as error:
        # sys.exit(0) in somebody's module must not pass for a verdict
        return _say(f"the code under test called sys.exit({error.code!r}): remove that from it, or guard it")
    except ToolError as error:
        hint = "" if os.environ.get(_DEBUG) else f"; {_DEBUG}=1 shows the traceback"
        return _say(
            f"equivcheck itself failed, and nothing is said of the pair: {error}{hint}; please report this line"
        )
    except Exception as error:
        if os.environ.get(_DEBUG):
            traceback.print_exc()
        hint = "" if os.environ.get(_DEBUG) else f"; run with {_DEBUG}=1 for the traceback"
        return _say(f"internal error: {type(error).__name__}: {error}{hint}")
    except BaseException as error:
        # nothing in equivcheck raises what is no Exception; a traceback's status 1 would pass for `different`
        told = f"{type(error).__name__}, which is no Exception: {error}"
        return _say(f"the code under test raised {told}; raise an Exception there, and it is judged")


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"equivcheck {version('equivcheck')}")
        except PackageNotFoundError:
            click.echo("equivcheck, run from its source")
        context.exit()


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print it.")
@click.pass_context
def cli(context: click.Context) -> int:
    """Is the fast attention the one that you trained with?

    Exit status: 0 equivalent, 1 different or insensitive, 2 could not be judged.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    return NOT_JUDGED  # a subcommand returns its own


@cli.command()
@of_a_pair
@click.option("--profile", type=click.Choice(configuration.PROFILES), help="How many cases.  [default: gate]")
@click.option("--exclude", metavar="NAME", multiple=True, help="Every check but this one; may be repeated.")
@click.option("--seed", type=whole(0, configuration.LARGEST_SEED), metavar="N", help="[default: 0]")
@click.option(
    "--max-seconds",
    type=number("number of seconds"),
    metavar="S",
    help="End after so long, if need be with a partial report.",
)
@click.option("--strict", is_flag=True, help="What the candidate refuses loudly, a transform or a dtype, fails too.")
@click.option("--jobs", type=whole(1, 64), metavar="N", help="Processes.  [default: as suits the machine]")
@click.option("--deviation", "deviations", metavar="NAME=REASON", multiple=True, help="A wanted difference.")
@file_option("--json", "json_file", "FILE", "Write the report as JSON.")
@file_option("--report", "folder", "DIR", "Write report.json, report.md, report.html and junit.xml into DIR.")
@file_option("--junit", "junit_file", "FILE", "Write the report as JUnit XML.")
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
    deviations: tuple[str, ...],
    strict: bool,
    json_file: Path | None,
    folder: Path | None,
    junit_file: Path | None,
    **adaptation: str | None,
) -> int:
    """Verify CANDIDATE against REFERENCE, or the pair that ships.

    Each is package.module:name or path/to/file.py:name. Defaults are read from [tool.equivcheck] in the pyproject.toml
    of the current folder.
    """
    from equivcheck.outputs import Outputs

    config = configuration.load(Path("pyproject.toml"))
    said = said_of(pair, adaptation, config)
    max_seconds = seconds("--max-seconds", max_seconds)
    reference, candidate = pair_of(pair, config)
    options: dict[str, Any] = {
        "kind": first(kind, config.kind, "auto"),
        "device": device_of(gpu, device, config),
        "profile": first(profile, config.profile, "gate"),
        "checks": checks or None,
        "exclude": exclude or config.exclude,
        "seed": first(seed, config.seed, 0),
        "max_seconds": first(max_seconds, config.max_seconds),
        "strict": strict,
        "jobs": jobs,
        "require_backend": require_backend,
        "deviations": {**config.deviations, **dict(map(configuration.deviation, deviations))} or None,
    }
    outputs = Outputs(json_file=json_file, junit_file=junit_file, folder=folder)
    outputs.probe()
    import_from_here()
    if jobs != 1 and not checks and options["profile"] != "quick":
        ahead.start()  # beside the imports that follow here; a few cases need no other process

    from equivcheck.progress import follow
    from equivcheck.report import github, table
    from equivcheck.verify import verify as judge

    if json_file or junit_file or folder:
        options["keep"] = outputs.keep

    with follow() as listener:
        found = judge(reference, candidate, listener=listener, **options, **said)
    failure = outputs.write(found)  # before the table: whoever closes the pipe early still has the files
    show(lambda: table.show(found))
    failure = failure or outputs.summary(found)
    if github.on_github():
        show(lambda: click.echo("".join(f"{line}\n" for line in github.annotations(found)), nl=False))
    if failure is not None:
        raise failure
    return 1 if found.verdict == "unsupported" else _STATUS.get(found.verdict, NOT_JUDGED)


@cli.command()
@click.argument("case_id")
@of_a_pair
def replay(
    case_id: str,
    pair: tuple[str, ...],
    kind: str | None,
    gpu: bool,
    device: str | None,
    checks: tuple[str, ...],
    require_backend: tuple[str, ...],
    **adaptation: str | None,
) -> int:
    """Hold a pair against the one case CASE_ID, as a counterexample names it, and show everything."""
    config = configuration.load(Path("pyproject.toml"))
    reference, candidate = pair_of(pair, config)
    where = device_of(gpu, device, config)
    import_from_here()

    from equivcheck.report import table
    from equivcheck.verify import replay as judge

    kind = first(kind, config.kind, "auto")
    options: dict[str, Any] = {"kind": kind, "device": where, "checks": checks or None}
    options |= said_of(pair, adaptation, config) | {"require_backend": require_backend}
    results = judge(reference, candidate, case_id, **options)
    verdict, text = table.replayed(case_id, results)
    show(lambda: click.echo(text, nl=False))
    return _STATUS.get(verdict, NOT_JUDGED)


cli.add_command(report)
cli.add_command(gate)
cli.add_command(bench)


def _say(message: str) -> int:
    from equivcheck.report.table import clean

    with suppress(BrokenPipeError):
        click.echo(f"equivcheck: {clean(' '.join(message.split()))}", err=True)
    return NOT_JUDGED
