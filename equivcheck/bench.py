"""A benchmark: every row of a preset measured in turn for the pair, and what came of it as a Record."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import torch

from equivcheck.clocks import clocks
from equivcheck.errors import UsageError
from equivcheck.kernels import kernels_of
from equivcheck.kinds import resolve
from equivcheck.measure import DoesNotFit, Make, Quartiles, alone, fitting, paired, release
from equivcheck.peak import peak_of
from equivcheck.provenance import device_name, environment
from equivcheck.record import Line, Record, Side, coarse, comparable, shared, slower
from equivcheck.subject import Subject
from equivcheck.workload import Row, flops, makes, rows

__all__ = ["MAX_SECONDS", "against", "bench", "measured"]

MAX_SECONDS = 45.0
"""For the measuring of all rows together; the clock is looked at between repetitions."""
_LEAST_S = 0.2  # for the times of one row, however late it is

Told = Callable[[str, int, int], None]


def _silent(name: str, done: int, total: int) -> None:
    pass


def bench(
    reference: Any,
    candidate: Any,
    *,
    kind: str = "auto",
    device: str = "auto",
    preset: str | None = None,
    dtypes: Sequence[str] = (),
    max_seconds: float = MAX_SECONDS,
    only: Sequence[str] | None = None,
    told: Told = _silent,
) -> Record:
    """Measure the pair in a preset (None: `small` on the CPU, `guide` on CUDA); `only` limits it to rows of these names.

    `dtypes` are the preset's own where none are given; `told` hears the name of a row, how many are done, and of how many.
    Interrupted, the record holds what was measured until then and says that it is not complete. Raises UsageError.
    """
    subject = resolve(reference, candidate, kind=kind, device=device)
    preset = preset or ("guide" if subject.device.type == "cuda" else "small")
    wanted = [row for row in rows(preset, tuple(dtypes), subject.kind) if only is None or row.name in only]
    if not wanted:
        raise UsageError(f"preset {preset!r} has none of the rows asked for: give another preset, or other dtypes")
    began, lines, complete = time.monotonic(), [], True
    try:
        for number, row in enumerate(wanted):
            told(row.name, number, len(wanted))
            left = max_seconds - (time.monotonic() - began)
            lines.append(measured(subject, row, left / (len(wanted) - number)))
        told("", len(wanted), len(wanted))
    except KeyboardInterrupt:
        complete = False
    finally:
        release(subject.device)
    return Record(
        reference=subject.reference_name,
        candidate=subject.candidate_name,
        kind=subject.kind,
        device=device_name(subject.device),
        preset=preset,
        lines=tuple(lines),
        complete=complete,
        seconds=time.monotonic() - began,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=environment(subject.device),
    )


def measured(subject: Subject, row: Row, max_seconds: float) -> Line:
    """One row: the memory of each side alone, then the times of both in turn, or of one where the other does not fit."""
    began = time.monotonic()
    both = makes(subject, row)
    sides = [_looked_at(make, subject.device) for make in both]
    wall = row.work == "training step"
    on_cuda = subject.device.type == "cuda"
    line = Line(
        name=row.name,
        work=row.work,
        dtype=row.dtype,
        sizes={k: v for k, v in asdict(row.size).items()},
        reference=sides[0],
        candidate=sides[1],
        clock="wall clock, synchronised"
        if wall and on_cuda
        else "CUDA events, launched before"
        if on_cuda
        else "wall clock",
    )
    needed = flops(row, subject.kind)
    with ThreadPoolExecutor(1) as beside:
        seen = beside.submit(clocks, subject.device)
        left = max(_LEAST_S, max_seconds - (time.monotonic() - began))
        line = _timed(line, both, needed, subject.device, left, wall)
        gpu = seen.result()
    return replace(line, clocks=None if gpu is None else asdict(gpu))


def _looked_at(make: Make, device: torch.device) -> Side:
    """Which kernels one side runs and what memory it takes; a side that does not fit says so."""
    side = Side()
    try:
        with fitting(device):
            action = make()
            side = replace(side, kernels=kernels_of(lambda: action(0)))
            del action
        peak = peak_of(make, device)
        return replace(side, peak_bytes=peak.peak_bytes, above_bytes=peak.above_bytes)
    except DoesNotFit as error:
        side = replace(side, refused=str(error))
    release(device)
    return side


def _timed(
    line: Line, both: tuple[Make, Make], needed: float, device: torch.device, max_seconds: float, wall: bool
) -> Line:
    sides = {"reference": line.reference, "candidate": line.candidate}
    if not line.reference.refused and not line.candidate.refused:
        try:
            found = paired(*both, device, max_seconds=max_seconds, wall=wall)
            return replace(
                line,
                reference=_with_times(line.reference, found.first, needed),
                candidate=_with_times(line.candidate, found.second, needed),
                ratio=found.ratio,
                low=found.low,
                high=found.high,
                standard_error=found.standard_error,
                settled=found.settled,
            )
        except DoesNotFit:
            pass  # each alone does: then one after the other
        release(device)
    fit = [name for name, side in sides.items() if not side.refused]
    for name, make in zip(sides, both, strict=True):
        if name in fit:
            try:
                times = alone(make, device, max_seconds=max_seconds / len(fit), wall=wall)
                sides[name] = _with_times(sides[name], times, needed)
            except DoesNotFit as error:
                sides[name] = replace(sides[name], refused=str(error))
            release(device)
    mine, its = sides["candidate"].median_ms, sides["reference"].median_ms
    ratio = its / mine if mine and its else None
    return replace(line, reference=sides["reference"], candidate=sides["candidate"], ratio=ratio, interleaved=False)


def _with_times(side: Side, times: Quartiles, needed: float) -> Side:
    return replace(
        side,
        median_ms=times.median_ms,
        lower_ms=times.lower_ms,
        upper_ms=times.upper_ms,
        repetitions=times.count,
        host_ms=times.host_ms,
        flops_per_s=needed / times.median_ms * 1e3,
    )


def against(
    before: Record, now: Record, where: str, tripwire: float, again: Callable[[list[str]], Record]
) -> tuple[list[str], list[str]]:
    """What is slower than in `before` by more than `tripwire` percent, measured twice, and what cannot be told.

    A sentence for each row of either kind. `again` measures the rows of the given names once more: only what is too slow then
    too is told. Raises UsageError where nothing can be compared.
    """
    comparable(before, device=now.device, torch_version=now.environment["torch"], where=where)
    new: Mapping[str, Line] = {line.name: line for line in now.lines}
    names = [line.name for line in before.lines if line.name in new]
    if not names:
        raise UsageError(f"{where} has no row in common with preset {now.preset!r}: give a record of the same preset")
    compared = [old.name for old, _ in shared(before, new)]
    if not compared:
        was, now_is = (", ".join(sorted({line.clock for line in made.lines})) for made in (before, now))
        raise UsageError(
            f"{where} was timed by another clock ({was}) than is used now ({now_is}), and nothing can be compared: make it again"
        )
    suspects = [name for name, _ in slower(before, new, tripwire)]
    unclear = coarse(before, new, tripwire)
    if not suspects and len(unclear) == len(compared):
        raise UsageError(
            f"times vary too much to tell {tripwire:g} % in all {len(compared)} rows shared with {where}: "
            "measure on a machine that does nothing else, or give it more --max-seconds"
        )
    untold = [f"too coarse to tell: {name}" for name in unclear]
    untold += [f"timed by another clock in {where}: {name}" for name in names if name not in compared]
    if not suspects:
        return [], untold
    confirmed = {line.name: line for line in again(suspects).lines}
    return [told for _, told in slower(before, confirmed, tripwire)], untold
