"""The command `gate`: it judges committed reports against the current source files."""

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path

import click

from equivcheck.cli import config as configuration
from equivcheck.cli.command import Command
from equivcheck.cli.options import first, import_from_here, show_text
from equivcheck.cli.values import CHECK, FILE, FOLDER, LEVEL_LIST, Choice, Words
from equivcheck.errors import UsageError
from equivcheck.report.chosen_checks import refuse_unknown_checks
from equivcheck.report.coverage import shares_of
from equivcheck.report.levels import levels_of

__all__ = ["gate"]

_UNITS = {"h": 1, "d": 24, "w": 7 * 24}  # in hours


def _age(context: click.Context, parameter: click.Parameter, value: str | None) -> timedelta | None:
    if value is None:
        return None
    match = re.fullmatch(r"(\d{1,6})([hdw])", value)
    if match is None or not int(match[1]):
        raise UsageError(f"--max-age {value!r}: a number with h, d or w is allowed, such as 12h, 30d or 8w")
    return timedelta(hours=int(match[1]) * _UNITS[match[2]])


def _dtypes(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    dtypes = tuple(name.strip() for name in value.split(","))
    if not all(name in configuration.DTYPES for name in dtypes):
        allowed = ", ".join(configuration.DTYPES)
        raise UsageError(f"--require-dtypes {value!r}: one or more of {allowed}, with commas between them, are allowed")
    return dtypes


def _shares(context: click.Context, parameter: click.Parameter, value: str | None) -> dict[str, float] | None:
    return shares_of(value)


@click.command(
    cls=Command,
    short_help="Judge committed reports against the source files.",
    examples=(
        "equivcheck gate reports/cpu/report.json",
        "equivcheck gate reports/*/report.json --require-device cuda --max-age 30d",
        "equivcheck gate report.json --against old.json --require values,training",
    ),
)
@click.argument("files", nargs=-1, required=True, type=FILE, metavar="FILE...")
@click.option(
    "--check",
    "checks",
    type=CHECK,
    metavar="NAME",
    multiple=True,
    help="Required; default: all that apply to the pair.",
)
@click.option("--require-device", "devices", metavar="DEVICE", multiple=True, help="Such as cuda, or a GPU's name.")
@click.option("--min-profile", type=Choice(configuration.PROFILES), help="The least profile.  [default: gate]")
@click.option(
    "--min-coverage",
    metavar="pairs=SHARE[,triples=SHARE]",
    callback=_shares,
    help="The least share of pairs or triples of classes that is met in every check that counts them.",
)
@click.option(
    "--require-dtypes",
    type=Words("dtypes", lambda given: configuration.DTYPES, ","),
    metavar="DTYPE,...",
    callback=_dtypes,
    help="Default: all that the pair runs in.",
)
@click.option(
    "--require",
    type=LEVEL_LIST,
    metavar="LEVEL[,LEVEL]",
    help="The levels that must be equivalent.  [default: the report's]",
)
@click.option("--require-torch", metavar="X.Y", help="The run must have been made with this torch.")
@click.option(
    "--strict-environment", is_flag=True, help="Refuse another torch, or other packages of the pair, than are here."
)
@click.option("--require-domain", metavar="EXPR", help="Cases that must be in the domain of each report.")
@click.option("--max-age", metavar="AGE", callback=_age, help="Such as 12h, 30d or 8w.")
@click.option("--against", type=FILE, metavar="OLD", help="Must not fall behind this report.")
@click.option("--root", type=FOLDER, default=".", help="The folder of the run.  [default: here]")
def gate(
    files: Sequence[Path],
    checks: tuple[str, ...],
    devices: tuple[str, ...],
    min_profile: str | None,
    min_coverage: Mapping[str, float] | None,
    require_dtypes: tuple[str, ...] | None,
    require: str | None,
    require_torch: str | None,
    strict_environment: bool,
    require_domain: str | None,
    max_age: timedelta | None,
    against: Path | None,
    root: Path,
) -> int:
    """Judge the reports in FILE..., one per device, against the current source files; nothing is run.

    Exit status 0: complete, made from these source files, of enough cases, sensitive and green; 1: refused, with one
    line for each reason; 2: a file cannot be read as a report, or is not one that `verify` wrote. Each part of the pair
    that the evidence does not cover is a note.
    """
    from equivcheck.engine.gate.environment import required_torch
    from equivcheck.engine.gate.verdict import GatePolicy, notes, violations
    from equivcheck.report import codec, github, table

    if not root.is_dir():
        raise UsageError(f"--root {root}: there is no such folder; give the one in which verify was run")
    if not all(device.strip() for device in devices):
        raise UsageError("--require-device '': a device such as cuda, or a part of a GPU's name, is allowed; name one")
    levels = levels_of(require)
    config = configuration.load(root / "pyproject.toml")
    refuse_unknown_checks(checks, config.exclude)
    reports = {str(file): codec.read(file) for file in files}
    policy = GatePolicy(
        checks=checks,
        exclude=config.exclude,
        devices=devices,
        min_profile=first(min_profile, config.min_profile, "gate"),
        min_coverage=first(min_coverage, config.min_coverage, {}),
        dtypes=first(require_dtypes, config.require_dtypes),
        require=first(levels, config.require),
        torch=None if require_torch is None else required_torch(require_torch),
        strict_environment=strict_environment,
        pair=(config.reference, config.candidate) if config.reference and config.candidate else None,
        max_age=max_age,
        domain=first(require_domain, config.require_domain),
        deviations=config.deviations,
        root=root.resolve(),
    )
    import_from_here()
    old = None if against is None else (str(against), codec.read(against))
    reasons = [table.clean(" ".join(reason.split())) for reason in violations(reports, policy, old)]
    lines = [f"refused: {reason}" for reason in reasons]
    if github.on_github():
        lines += [github.error(reason, "equivcheck gate") for reason in reasons]
    lines += [table.clean(f"note: {' '.join(note.split())}") for note in notes(reports, policy)]
    for name, report in reports.items():
        lines.append(table.clean(f"{name}: {table.verdict_line(report)}"))
        lines.append(table.clean(f"{name}: {table.evidence_line(report)}"))
    lines.append(
        f"gate: refused, {len(reasons)} reason{'s' if len(reasons) != 1 else ''}" if reasons else "gate: green"
    )
    show_text("\n".join(lines) + "\n")
    return 1 if reasons else 0
