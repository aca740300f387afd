"""The common options of the commands: the pair, its kind, the device, the imports, and the printing."""

import os
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO, TypeVar

import click

from equivcheck.cli import config as configuration
from equivcheck.cli.colours import with_colours
from equivcheck.cli.values import CHECK, DEVICE, FILE, FOLDER, SIDE, Amount, Choice, Words
from equivcheck.errors import UsageError
from equivcheck.report import streams
from equivcheck.report.outputs import FORMATS
from equivcheck.runtime.device import DEVICE_TYPES, GPU, allowed
from equivcheck.runtime.required_kernels import KERNEL_NAMES

__all__ = [
    "NOT_JUDGED",
    "SHIPPED",
    "device_of",
    "device_options",
    "domain_option",
    "file_option",
    "first",
    "import_from_here",
    "memory_option",
    "of_a_pair",
    "options_of_a_pair",
    "output_files",
    "output_options",
    "pair_of",
    "show",
    "show_text",
    "user_functions",
]

NOT_JUDGED = 2
"""The exit status of a run that could not be judged."""

SHIPPED = ("equivcheck.attention:CausalSelfAttention", "equivcheck.attention:FlashCausalSelfAttention")

_ADAPTATION = {
    "config": "From a minGPT config to the arguments of the constructors",
    "inputs": "From x to the arguments of forward",
    "outputs": "From the result of forward to the tensor to compare",
    "transfer": "From the reference's state_dict to the candidate's; or the word auto",
    "oracle": "The original in float64, if the original does not run in it",
}

F = TypeVar("F", bound=Callable[..., Any])


def device_options(command: F) -> F:
    """Give `command` the choice of a device."""
    title = DEVICE_TYPES[GPU].title
    for decorate in (
        click.option("--device", type=DEVICE, metavar="DEVICE", help=f"{allowed('or')}.  [default: auto]"),
        click.option(
            "--gpu", is_flag=True, help=f"The same as --device {GPU}: an error if there is no {title} device."
        ),
    ):
        command = decorate(command)
    return command


def domain_option(command: F) -> F:
    """Give `command` the option for the domain."""
    text = "Where the original is meant to run: 'head_size in (64, 128)'."
    return click.option("--domain", metavar="EXPR", help=text)(command)


def memory_option(command: F) -> F:
    """Give `command` the limit of the candidate's memory."""
    text = "The candidate's peak memory, at most so many times the original's: the check memory."
    return click.option("--max-memory-ratio", type=Amount("times"), metavar="R", help=text)(command)


def of_a_pair(command: F) -> F:
    """Give `command` the options of `verify` and `replay`: pair, kind, adaptation, device and checks."""
    return click.argument("pair", nargs=-1, type=SIDE, metavar="[REFERENCE CANDIDATE]")(options_of_a_pair(command))


def options_of_a_pair(command: F) -> F:
    """Give `command` the options of `of_a_pair`, without the pair."""
    for decorate in (
        click.option(
            "--require-backend",
            type=Words("kernel", lambda given: KERNEL_NAMES),
            metavar="[DTYPE=]KERNEL",
            multiple=True,
            help="flash, cudnn, efficient or math must run, and no other; may be repeated.",
        ),
        click.option(
            "--check", "checks", type=CHECK, metavar="NAME", multiple=True, help="Only this check; may be repeated."
        ),
        device_options,
        click.option("--kind", type=Choice(configuration.KINDS), help="The kind of the pair.  [default: auto]"),
        *(
            click.option(f"--{name}", metavar="FUNCTION", help=f"{text}: an import string.")
            for name, text in reversed(_ADAPTATION.items())
        ),
    ):
        command = decorate(command)
    return command


def file_option(name: str, variable: str, metavar: str, text: str) -> Callable[[F], F]:
    """An option whose value is the place of a file, or of a folder if `metavar` is DIR."""
    return click.option(name, variable, type=FOLDER if metavar == "DIR" else FILE, metavar=metavar, help=text)


def output_options(command: F) -> F:
    """Give `command` the places of its report: an option for each form that has one, and a folder for all files."""
    *names, last = (form.file for form in FORMATS if form.file)
    folder = file_option("--report", "folder", "DIR", f"Write {', '.join(names)} and {last} into DIR.")
    files = [file_option(form.option, f"{form.name}_file", "FILE", form.help) for form in FORMATS if form.option]
    for decorate in reversed((files[0], folder, *files[1:])):  # the help shows the last one first
        command = decorate(command)
    return command


def output_files(given: dict[str, Any]) -> dict[str, Path | None]:
    """Take the options for single files out of `given`, and return them by the names of their forms."""
    return {form.name: given.pop(f"{form.name}_file") for form in FORMATS if form.option}


def pair_of(given: tuple[str, ...], config: configuration.Config) -> tuple[str, str]:
    """The reference and the candidate: from the command line, else from the config, else the pair that ships."""
    if len(given) == 2:
        return given[0], given[1]
    if given:
        what = f"{given[0]!r} without a candidate" if len(given) == 1 else ", ".join(map(repr, given))
        raise UsageError(f"{what}: REFERENCE CANDIDATE is allowed, or neither for the pair that ships; give two")
    if config.reference is not None and config.candidate is not None:
        return config.reference, config.candidate
    return SHIPPED


def user_functions(
    pair: tuple[str, ...], given: Mapping[str, str | None], config: configuration.Config
) -> dict[str, Any]:
    """The functions that say how modules are built and called, by option; those of the config only for its pair."""
    functions = {name: first(value, None if pair else getattr(config, name)) for name, value in given.items()}
    return {name: function for name, function in functions.items() if function is not None}


def device_of(gpu: bool, device: str | None, config: configuration.Config) -> str:
    """The device: from the command line, else from the config, else `auto`; a UsageError for a contradiction."""
    if device == "":  # such as an unset variable of a shell: not the same as no option
        raise UsageError(f"--device '': {allowed('and')} are allowed")
    if gpu and device is not None and not device.startswith(GPU):
        raise UsageError(f"--gpu and --device {device} contradict each other: give one of the two")
    return device or (GPU if gpu else config.device or "auto")


def first(*values: Any) -> Any:
    """The first of the values that is not None; None if there is none."""
    return next((value for value in values if value is not None), None)


def import_from_here() -> None:
    """Make the modules of the current folder importable, as `python -m` does and an installed command does not.

    They stay importable if code under test changes the folder: no entry of `sys.path` is relative afterwards.
    """
    with suppress(OSError):  # the folder may have been removed
        here = os.getcwd()
        sys.path[:] = [os.path.abspath(entry) if isinstance(entry, str) else entry for entry in sys.path]
        if here not in sys.path:
            sys.path.insert(0, here)


def show(render: Callable[[TextIO], object]) -> None:
    """Write a table or a verdict by `render` to the stream for text, or if that fails to the other one.

    A reader that has closed the pipe early is no failure: the exit status still has the verdict.
    """
    both = streams.current()
    for stream in (both.text(), both.notes()):
        with suppress(BrokenPipeError):
            render(with_colours(stream))
            stream.flush()
        if getattr(stream, "failure", None) is None:
            return


def show_text(text: str) -> None:
    """Write `text` as `show` does."""
    show(lambda stream: stream.write(text))
