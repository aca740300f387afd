"""A benchmark: it measures every row of a preset for the pair, and makes a Record of the results."""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import torch

from equivcheck.bench.gpu_state import Clocks, clocks
from equivcheck.bench.memory import peak_of
from equivcheck.bench.paired_timing import ROUNDS, DoesNotFit, Make, Pairing, Quartiles, alone, fitting, release
from equivcheck.bench.record import Line, Record, Side, coarse, comparable, shared, slower
from equivcheck.bench.timer import clock_name
from equivcheck.bench.workloads import Row, flops, makes, rows
from equivcheck.errors import UsageError
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve
from equivcheck.report.provenance import environment
from equivcheck.runtime.device import device_name, type_of
from equivcheck.runtime.kernel_trace import kernels_of

__all__ = ["MAX_SECONDS", "RowMeasured", "against", "bench"]

MAX_SECONDS = 45.0
"""The time limit of all rows together; it is checked between repetitions."""
_LEAST_S = 0.2  # for the times of one row, even after the limit

OnProgress = Callable[[str, int, int], None]
"""Takes the name of a row, the number of steps done, and the number of all steps."""


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
    on_progress: OnProgress = _silent,
) -> Record:
    """Measure the pair in the rows of a preset.

    An interrupted benchmark returns the rows that were measured, in a record that is not `complete`.

    Args:
        reference: The original, as an object or an import string.
        candidate: The candidate, likewise.
        kind: The kind of the pair.
        device: The device to measure on.
        preset: The name of the preset; by default `small` on a CPU and `guide` on an accelerator.
        dtypes: The dtypes to measure in; by default those of the preset.
        max_seconds: The time limit of all rows together.
        only: The names of the rows to measure; None for all rows.
        on_progress: Called before each step, and at the end.

    Raises:
        UsageError: The pair cannot be resolved, or the preset has none of these rows.
    """
    subject = resolve(reference, candidate, kind=kind, device=device)
    preset = preset or ("guide" if type_of(subject.device).accelerator else "small")
    wanted = [row for row in rows(preset, tuple(dtypes), subject.kind) if only is None or row.name in only]
    if not wanted:
        raise UsageError(f"preset {preset!r} has none of the rows asked for: give another preset, or other dtypes")
    began, complete = time.monotonic(), True
    measured = [RowMeasured(subject, row) for row in wanted]
    # round by round through all rows, so that the interval of each covers a drift of the whole run, such as of clocks
    steps = [(one, number) for number in range(-1, ROUNDS) for one in measured]
    try:
        for done, (one, number) in enumerate(steps):
            what = "memory and kernels" if number < 0 else f"times, round {number + 1} of {ROUNDS}"
            on_progress(f"{one.row.name}: {what}", done, len(steps))
            left = max_seconds - (time.monotonic() - began)
            if number < 0:
                one.look()
            else:
                one.round(max(_LEAST_S / ROUNDS, left / (len(steps) - done)))
        on_progress("", len(steps), len(steps))
    except KeyboardInterrupt:
        complete = False
    finally:
        release(subject.device)
    lines = [one.line for one in measured if one.line is not None]
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


class RowMeasured:
    """The measurement of one row: first the memory of each side alone, then the times of both in turn.

    Sides that do not fit beside each other are timed one after the other.
    """

    def __init__(self, subject: Pair, row: Row) -> None:
        self.row, self._device = row, subject.device
        self._makes = makes(subject, row)
        self._flops = flops(row, subject.kind)
        self._wall = row.work == "training step"
        self._pairing: Pairing | None = None
        self._line: Line | None = None
        self._clocks: Clocks | None = None

    @property
    def line(self) -> Line | None:
        """The row as measured so far; None before `look`, or while nothing is timed."""
        line, paired = self._line, self._pairing.result if self._pairing is not None else None
        if line is None:
            return None
        if paired is not None:
            line = replace(
                line,
                reference=_with_times(line.reference, paired.first, self._flops),
                candidate=_with_times(line.candidate, paired.second, self._flops),
                ratio=paired.ratio,
                low=paired.low,
                high=paired.high,
                standard_error=paired.standard_error,
                settled=paired.settled,
            )
        elif self._pairing is not None:
            return None
        return replace(line, clocks=None if self._clocks is None else asdict(self._clocks))

    def look(self) -> None:
        """Find the kernels and measure the memory of each side."""
        reference, candidate = (_looked_at(make, self._device) for make in self._makes)
        row, clock = self.row, clock_name(self._device, self._wall)
        self._line = Line(row.name, row.work, row.dtype, asdict(row.size), reference, candidate, clock=clock)
        if not (reference.refused or candidate.refused):
            self._pairing = Pairing(*self._makes, self._device, wall=self._wall)

    def round(self, max_seconds: float) -> None:
        """Time one round."""
        with ThreadPoolExecutor(1) as beside:
            seen = beside.submit(clocks, self._device) if self._clocks is None else None
            if self._pairing is not None:
                try:
                    self._pairing.round(max_seconds)
                except DoesNotFit:  # each fits alone: then one after the other
                    self._pairing = None
                    release(self._device)
            if self._pairing is None:
                self._one_by_one(max_seconds)
            if seen is not None:
                self._clocks = seen.result()

    def _one_by_one(self, max_seconds: float) -> None:
        line = self._line
        assert line is not None, "looked at first"
        sides = {"reference": line.reference, "candidate": line.candidate}
        fit = [name for name, side in sides.items() if not side.refused]
        for name, make in zip(sides, self._makes, strict=True):
            if name in fit:
                try:
                    # the last round replaces the others: there is no ratio to make precise
                    times = alone(make, self._device, max_seconds=max_seconds / len(fit), wall=self._wall)
                    sides[name] = _with_times(sides[name], times, self._flops)
                except DoesNotFit as error:
                    sides[name] = replace(sides[name], refused=str(error))
                release(self._device)
        candidate_ms, reference_ms = sides["candidate"].median_ms, sides["reference"].median_ms
        ratio = reference_ms / candidate_ms if candidate_ms and reference_ms else None
        self._line = replace(
            line, reference=sides["reference"], candidate=sides["candidate"], ratio=ratio, interleaved=False
        )


def _looked_at(make: Make, device: torch.device) -> Side:
    """The kernels and the memory of one side; `refused` if it does not fit."""
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
    """The rows that are slower than in `before`, measured twice, and the rows that cannot be compared.

    Args:
        before: The older record.
        now: The new record.
        where: The name of the older record, for messages.
        tripwire: The slowdown that is allowed, in percent.
        again: Measures the rows of the given names once more; a row counts as slower if it is too slow both times.

    Returns:
        A sentence for each slower row, and one for each row that is too coarse or was timed by another clock.

    Raises:
        UsageError: Nothing can be compared.
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
            f"{where} was timed by another clock ({was}) than is used now ({now_is}), "
            "and nothing can be compared: make it again"
        )
    suspects = [name for name, _ in slower(before, new, tripwire)]
    too_coarse = coarse(before, new, tripwire)
    if not suspects and len(too_coarse) == len(compared):
        raise UsageError(
            f"times vary too much to tell {tripwire:g} % in all {len(compared)} rows shared with {where}: "
            "measure on a machine that does nothing else, or give it more --max-seconds"
        )
    unclear = [f"too coarse to tell: {name}" for name in too_coarse]
    unclear += [f"timed by another clock in {where}: {name}" for name in names if name not in compared]
    if not suspects:
        return [], unclear
    confirmed = {line.name: line for line in again(suspects).lines}
    return [sentence for _, sentence in slower(before, confirmed, tripwire)], unclear
