"""The command line: `verify`, `judge`, `merge`, `replay`, `report`, `gate`, `bench`, `checks` and `faults`.

A script can rely on its exit statuses: 0 equivalent; 1 different or insensitive; 2 could not be judged.
Every error is one line on standard error.
No slow module is imported before the arguments have been read, so that `--help` and a typing mistake answer at once.
"""

import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress

import click

from equivcheck.cli.bench import bench
from equivcheck.cli.checks import checks
from equivcheck.cli.command import Group, unknown_option
from equivcheck.cli.faults import faults
from equivcheck.cli.gate import gate
from equivcheck.cli.judge import judge
from equivcheck.cli.merge import merge
from equivcheck.cli.options import NOT_JUDGED
from equivcheck.cli.replay import replay
from equivcheck.cli.report import report
from equivcheck.cli.verify import verify
from equivcheck.errors import ToolError, UsageError
from equivcheck.report import streams
from equivcheck.report.streams import DEBUG

__all__ = ["cli", "main"]

_COMPLETING = "_EQUIVCHECK_COMPLETE"
"""The environment variable by which a shell asks for completions, in the form of click."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line on `arguments` (None: those of the process), and return the exit status; raise nothing."""
    if _COMPLETING in os.environ:
        return _completed()
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # a stream that is not of Python's
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]  # see the line above
    with streams.private(stay=arguments is None) as both:
        status = _status(arguments)
        return NOT_JUDGED if both.failed() else status


def _completed() -> int:
    """Answer a shell that completes a command line: click writes to the streams of the process, and ends it."""
    try:
        cli.main(prog_name="equivcheck", complete_var=_COMPLETING)
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else NOT_JUDGED
    return 0


def _status(arguments: Sequence[str] | None) -> int:
    try:
        status: int = cli.main(args=arguments, prog_name="equivcheck", standalone_mode=False)
        return status
    except UsageError as error:
        return _say(str(error))
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "equivcheck"
        message = unknown_option(error) if isinstance(error, click.NoSuchOption) else error.format_message()
        return _say(f"{message.rstrip('.')}; see {command} --help")
    except click.ClickException as error:
        return _say(error.format_message())
    except (click.Abort, KeyboardInterrupt):
        return _say("interrupted before there was anything to report")
    except SystemExit as error:
        # sys.exit(0) in the code under test must not pass for a verdict
        return _say(f"the code under test called sys.exit({error.code!r}): remove that from it, or guard it")
    except Exception as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        what = str(error) if isinstance(error, ToolError) else f"{type(error).__name__}: {error}"
        hint = "" if os.environ.get(DEBUG) else f"; {DEBUG}=1 shows the traceback"
        return _say(f"internal error: {what}; nothing is said of the pair, please report this line{hint}")
    except BaseException as error:
        # equivcheck raises nothing but Exceptions; a traceback's status 1 would pass for `different`
        description = f"{type(error).__name__}, which is no Exception: {error}"
        return _say(f"the code under test raised {description}; raise an Exception there, and it is judged")


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"equivcheck {version('equivcheck')}")
        except PackageNotFoundError:
            click.echo("equivcheck, run from its source")
        context.exit()


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print it.")
@click.pass_context
def cli(context: click.Context) -> int:
    """Is the fast attention the one that you trained with?

    Exit status: 0 equivalent, 1 different or insensitive, 2 could not be judged.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
    return NOT_JUDGED  # a subcommand returns another one


cli.add_command(verify)
cli.add_command(judge)
cli.add_command(merge)
cli.add_command(replay)
cli.add_command(report)
cli.add_command(gate)
cli.add_command(bench)
cli.add_command(checks)
cli.add_command(faults)


def _say(message: str) -> int:
    from equivcheck.report.clean_text import clean

    streams.current().say(f"equivcheck: {clean(' '.join(message.split()))}")
    return NOT_JUDGED
