"""A record of speed: plain data with its device and versions, stored as JSON, and compared with a later record."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from equivcheck.errors import ReportError, UsageError
from equivcheck.report.files import read_bounded

__all__ = [
    "SCHEMA_VERSION",
    "TRIPWIRE",
    "Line",
    "Record",
    "Side",
    "coarse",
    "comparable",
    "dumps",
    "read",
    "shared",
    "slower",
]

SCHEMA_VERSION = 1
TRIPWIRE = 25.0
"""The percentage by which a candidate may become slower against the original before the gate trips."""


@dataclass(frozen=True)
class Side:
    """The reference or the candidate in one line of a record; `refused` says why it does not fit into memory."""

    kernels: tuple[str, ...] = ()
    median_ms: float | None = None
    lower_ms: float | None = None  # quartiles
    upper_ms: float | None = None
    repetitions: int = 0
    flops_per_s: float | None = None
    host_ms: float | None = None  # the time that launching takes the host, if the times are the GPU's alone
    peak_bytes: int | None = None
    above_bytes: int | None = None  # above what is resident
    refused: str = ""


@dataclass(frozen=True)
class Line:
    """One row: both sides, and the original's time over the candidate's with its 95 % interval.

    `interleaved` is False if the two did not fit beside each other, and were timed one after the other.
    """

    name: str
    work: str
    dtype: str
    sizes: Mapping[str, int | float]  # B, T, H, C, layers, block_size, vocab_size, rate
    reference: Side
    candidate: Side
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    standard_error: float | None = None
    settled: bool = False
    interleaved: bool = True
    clock: str = ""  # the name of the clock of the times
    clocks: Mapping[str, Any] | None = None  # the state of the GPU while it worked; None if it cannot be read


@dataclass(frozen=True)
class Record:
    """The measurements of one `equivcheck bench`; its times are compared as ratios only."""

    reference: str
    candidate: str
    kind: str
    device: str
    preset: str
    lines: tuple[Line, ...]
    complete: bool
    seconds: float
    created: str  # ISO 8601, UTC
    environment: Mapping[str, str] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION


def dumps(record: Record) -> str:
    """The record as JSON text."""
    return json.dumps(asdict(record), indent=1) + "\n"


def read(path: Path) -> Record:
    """The record that `dumps` made; a ReportError says what is wrong with the file."""
    try:
        content = json.loads(read_bounded(path).decode("utf-8"))
    except OSError as error:
        raise ReportError(
            f"{path} cannot be read: {error.strerror or error}; give a record of `equivcheck bench`"
        ) from None
    except ValueError as error:
        raise ReportError(f"{path} is no JSON: {error}; give a record of `equivcheck bench --json`") from None
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != SCHEMA_VERSION or "lines" not in content:
        raise ReportError(
            f"{path}: schema version {version!r}, "
            f"and a record of `equivcheck bench` has {SCHEMA_VERSION}: make it again"
        )
    try:
        lines = tuple(
            Line(**{**line, "reference": _side(line["reference"]), "candidate": _side(line["candidate"])})
            for line in content.pop("lines")
        )
        return Record(**content, lines=lines)
    except (TypeError, KeyError, AttributeError) as error:
        raise ReportError(f"{path} is no record of `equivcheck bench`: {error}; make it again") from None


def _side(content: dict[str, Any]) -> Side:
    return Side(**{**content, "kernels": tuple(content["kernels"])})


def comparable(before: Record, *, device: str, torch_version: str, where: str) -> None:
    """Raise a UsageError with the reason if times cannot be compared with the record `before`."""
    if before.device != device:
        raise UsageError(
            f"{where} was made on {before.device}, and this is {device}: "
            "ratios are compared on the same device; make one here"
        )
    was = before.environment.get("torch", "")
    if _minor(was) != _minor(torch_version):
        raise UsageError(
            f"{where} was made with torch {was}, and this is {torch_version}: "
            "ratios are compared within one minor version; make it again"
        )


def _minor(version: str) -> list[str]:
    return version.split("+")[0].split(".")[:2]


def shared(before: Record, lines: Mapping[str, Line]) -> Iterator[tuple[Line, Line]]:
    """The lines of `before` that are in `lines` too, each with its line there, if both were timed by the same clock."""
    for old in before.lines:
        new = lines.get(old.name)
        if new is not None and new.clock == old.clock:
            yield old, new


def coarse(before: Record, lines: Mapping[str, Line], tripwire: float) -> list[str]:
    """The names of the shared lines that were measured too coarsely for `tripwire` percent to stand out."""
    return [
        old.name
        for old, new in shared(before, lines)
        if old.ratio and new.ratio and _uncertainty(old, new) >= math.log1p(tripwire / 100)
    ]


def slower(before: Record, lines: Mapping[str, Line], tripwire: float) -> Iterator[tuple[str, str]]:
    """The shared lines whose candidate became slower, against the original, by more than `tripwire` percent.

    The intervals of both ratios are allowed on top of that. A candidate that fitted in `before`, and no longer does,
    counts too.

    Returns:
        For each such line its name, and a sentence that states the change.
    """
    for old, new in shared(before, lines):
        if new.candidate.refused and not old.candidate.refused:
            yield old.name, f"{old.name}: the candidate no longer fits: {new.candidate.refused}"
        elif old.ratio and new.ratio:
            change = math.log(old.ratio / new.ratio)
            if change - _uncertainty(old, new) > math.log1p(tripwire / 100):
                yield (
                    old.name,
                    f"{old.name}: {new.ratio:.2f} × the original's speed, and {old.ratio:.2f} × in the record: "
                    f"{100 * math.expm1(change):.0f} % slower, and {tripwire:g} % is allowed",
                )


def _uncertainty(old: Line, new: Line) -> float:
    """The distance of the logarithms of the two ratios that chance explains."""
    return math.hypot(*(math.log(line.high / line.low) / 2 for line in (old, new) if line.high and line.low))
