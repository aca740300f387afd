"""The option `--workers`: the parts of a run, or the candidates of `judge`, as tasks of Ray."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from json import loads as from_json
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from equivcheck.errors import UsageError
from equivcheck.report import streams
from equivcheck.report.clean_text import one_line

if TYPE_CHECKING:
    from equivcheck.report.judged import Judged
    from equivcheck.report.model import Report
    from equivcheck.supervisor.candidates import Given
    from equivcheck.supervisor.interrupts import Flag
    from equivcheck.supervisor.ray_cluster import Ended

__all__ = ["address_from", "judged_on_ray", "options_given", "report_from_ray", "workers_option"]

_OUTPUTS = ("workers", "folder", "form", "json_file", "junit_file", "sarif_file", "feedback", "name", "jobs")
"""The parameters that are for this process alone."""

F = TypeVar("F", bound=Callable[..., Any])


def workers_option(what: str) -> Callable[[F], F]:
    """An option that hands the work to another engine; `what` is one task of it."""
    text = f"{what} as a task of Ray, on the cluster at ADDRESS, or one that is started here."
    return click.option("--workers", metavar="ray[:ADDRESS]", help=text)


def address_from(text: str | None, *, device: str) -> str | None:
    """The address of the cluster, empty if none is given; None for None.

    Args:
        text: The value of the option.
        device: The device of the run.

    Raises:
        UsageError: The text names no engine, or the device is one that Ray chooses.
    """
    if text is None:
        return None
    engine, _, address = text.partition(":")
    if engine != "ray":
        raise UsageError(f"--workers {text!r}: ray or ray:ADDRESS is allowed, such as ray:10.0.0.1:6379")
    if ":" in device:
        word = device.partition(":")[0]
        raise UsageError(f"--device {device} with --workers ray: Ray chooses the GPU of a task; give --device {word}")
    return address


def options_given(context: click.Context) -> list[str]:
    """The options of the command line as words, less those that are for this process alone; no arguments."""
    words: list[str] = []
    for parameter in context.command.get_params(context):
        name = str(parameter.name)
        if not isinstance(parameter, click.Option) or name in _OUTPUTS:
            continue
        if context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        value: Any = context.params.get(name)
        if parameter.is_flag:
            words.append((parameter.opts if value else parameter.secondary_opts)[0])
        else:
            words += [f"{parameter.opts[0]}={one}" for one in (value if parameter.multiple else [value])]
    return words


def report_from_ray(
    address: str,
    words: Sequence[str],
    pair: Sequence[str],
    *,
    device: str,
    jobs: int | None,
    nothing: "Report",
    keep: Callable[["Report"], None],
) -> "Report":
    """The report of a run whose parts are tasks of Ray, as `merge` makes it; partial if one was lost.

    Args:
        address: The address of the cluster; empty for any.
        words: The options of `verify` for each part.
        pair: The two sides.
        device: The device of the run.
        jobs: The processes of a part, if the user has said how many.
        nothing: The report of a run that was interrupted before its first part had ended.
        keep: A function that is given a partial report after every part.

    Raises:
        UsageError: There is no such cluster, or no part has a report.
    """
    from equivcheck.report import codec
    from equivcheck.supervisor.merging import merged
    from equivcheck.supervisor.ray_shares import share_for, slots

    done: list[tuple[str, Report]] = []
    lost: list[str] = []
    with _listening(address) as (cluster, flag):
        nodes = cluster.nodes()
        share = share_for(nodes, device=device, jobs=jobs)
        of = slots(nodes, share)
        parts = [["verify", *words, f"--shard={n}/{of}", "--json=-", "--", *pair] for n in range(1, of + 1)]
        with closing(cluster.run(parts, share, lambda: flag.up)) as ended:
            for count, one in enumerate(ended, 1):
                name = f"shard {one.number + 1}/{of}"
                try:
                    report = codec.loads(one.out, name)
                except UsageError as error:
                    said = one.reason or str(error)
                    lost.append(f"{name} has no report: {said}")
                else:
                    done.append((name, report))
                    keep(merged(done).report)
                    word = "no difference" if report.verdict == name else report.verdict
                    said = f"{word}, {report.seconds:.1f} s on {one.host}"
                _say(f"{name}: {said} ({count} of {of} parts are done)")
        interrupted = flag.up
    if not done and not interrupted:
        raise UsageError(lost[0].partition(": ")[2])
    for line in lost:
        _say(line)
    return merged(done).report if done else nothing


def judged_on_ray(
    address: str, words: Sequence[str], original: str, given: Sequence["Given"], *, device: str, jobs: int | None
) -> Iterator["Judged"]:
    """Judge each candidate in a task of Ray; one that is lost costs this candidate alone.

    Args:
        address: The address of the cluster; empty for any.
        words: The options of `judge` for each candidate.
        original: The original.
        given: The candidates; those with a problem are not started.
        device: The device of the runs.
        jobs: The processes of a run, if the user has said how many.

    Yields:
        Each candidate, as soon as it is judged.

    Raises:
        UsageError: There is no such cluster.
        KeyboardInterrupt: The candidates that are left were not judged.
    """
    from equivcheck.report.judged import Judged
    from equivcheck.supervisor.ray_shares import share_for

    yield from (Judged(given=one.text, candidate=one.candidate, problem=one.problem) for one in given if one.problem)
    sound = [one for one in given if not one.problem]
    if not sound:
        return
    with _listening(address) as (cluster, flag):
        share = share_for(cluster.nodes(), device=device, jobs=jobs)
        commands = [["judge", *words, "--feedback=full", "--json=-", "--", original, one.candidate] for one in sound]
        with closing(cluster.run(commands, share, lambda: flag.up)) as ended:
            for one in ended:
                yield _judged(sound[one.number], one)
        if flag.up:
            raise KeyboardInterrupt


def _judged(given: "Given", ended: "Ended") -> "Judged":
    from equivcheck.report.judged import Judged

    try:
        (entry,) = from_json(ended.out)["candidates"]
        return replace(Judged.of_entry(entry), given=given.text)
    except (ValueError, LookupError, TypeError):  # it wrote none
        reason = ended.reason or "its task ended without a result"
        return Judged(given=given.text, candidate=given.candidate, problem=reason, reason="cut-short")


@contextmanager
def _listening(address: str) -> Iterator[tuple[Any, "Flag"]]:
    """A cluster, and a flag that signals raise: it is theirs after Ray has set its handlers."""
    import signal

    from equivcheck.supervisor.interrupts import listening
    from equivcheck.supervisor.ray_cluster import connected

    before = signal.getsignal(signal.SIGTERM)
    try:
        with connected(address) as cluster, listening(signal.SIGINT, signal.SIGTERM) as flag:
            yield cluster, flag
    finally:
        signal.signal(signal.SIGTERM, before)


def _say(line: str) -> None:
    notes = streams.current().notes()
    try:
        notes.write(f"{one_line(line)}\n")
        notes.flush()
    except BrokenPipeError:  # the reader has closed the pipe: no reason to end the run
        return
