"""The command `gate`: committed reports judged against the source as it stands."""

import math
import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import click

from equivcheck import config as configuration
from equivcheck.errors import UsageError
from equivcheck.options import import_from_here, number, show_text

__all__ = ["gate"]

_UNITS = {"h": 1, "d": 24, "w": 7 * 24}  # in hours


def _age(context: click.Context, parameter: click.Parameter, value: str | None) -> timedelta | None:
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,6})([hdw])", value)
    if match is None or not int(match[1]):
        raise UsageError(f"--max-age {value!r}: a number with h, d or w is allowed, such as 12h, 30d or 8w")
    return timedelta(hours=int(match[1]) * _UNITS[match[2]])


@click.command()
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="FILE...")
@click.option("--check", "checks", metavar="NAME", multiple=True, help="Required; default: all that apply to the pair.")
@click.option("--require-device", "devices", metavar="DEVICE", multiple=True, help="Such as cuda, or a GPU's name.")
@click.option("--max-age", metavar="AGE", callback=_age, help="Such as 12h, 30d or 8w.")
@click.option("--against", type=click.Path(path_type=Path), metavar="OLD", help="Must not fall behind this report.")
@click.option(
    "--tripwire", type=number("number of percent"), metavar="PERCENT", help="How much slower than in OLD is too slow."
)
@click.option("--root", type=click.Path(path_type=Path), default=".", help="Where verify was run.  [default: here]")
def gate(
    files: Sequence[Path],
    checks: tuple[str, ...],
    devices: tuple[str, ...],
    max_age: timedelta | None,
    against: Path | None,
    tripwire: float | None,
    root: Path,
) -> int:
    """Judge the reports in FILE..., one a device, against the source as it stands; nothing is run.

    Exit status 0: complete, made from this very source, sensitive and green; 1: refused, for the reasons that are told,
    one a line; 2: a file cannot be read as a report, or is not what `verify` wrote.
    """
    from equivcheck.gate import Demands, refusals
    from equivcheck.report import github, json, table

    if not root.is_dir():
        raise UsageError(f"--root {root}: there is no such folder; give the one in which verify was run")
    if not all(device.strip() for device in devices):
        raise UsageError("--require-device '': a device such as cuda, or a part of a GPU's name, is allowed; name one")
    if tripwire is not None and not 0 < tripwire < math.inf:
        raise UsageError(f"--tripwire {tripwire:g}: a number of percent above 0 is allowed")
    config = configuration.load(root / "pyproject.toml")
    pair = (config.reference, config.candidate) if config.reference and config.candidate else None
    reports = {str(file): json.read(file) for file in files}
    demands = Demands(
        checks=checks,
        exclude=config.exclude,
        devices=devices,
        pair=pair,
        max_age=max_age,
        tripwire=tripwire,
        deviations=config.deviations,
        root=root.resolve(),
    )
    import_from_here()
    old = None if against is None else (str(against), json.read(against))
    told = [table.clean(" ".join(reason.split())) for reason in refusals(reports, demands, old)]
    lines = [f"refused: {reason}" for reason in told]
    if github.on_github():
        lines += [github.error(reason, "equivcheck gate") for reason in told]
    for name, report in reports.items():
        lines.append(table.clean(f"{name}: {table.verdict_line(report)}"))
    lines.append(f"gate: refused, {len(told)} reason{'s' if len(told) != 1 else ''}" if told else "gate: green")
    show_text("\n".join(lines) + "\n")
    return 1 if told else 0
