"""A record of speed as a table and as plots: speed-up and memory against the length, on logarithmic axes."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from equivcheck.bench.record import Line, Record, Side
from equivcheck.errors import UsageError

__all__ = ["markdown", "plain", "plot", "plotting"]

HEADINGS = (
    "work",
    "dtype",
    "T",
    "original ms",
    "candidate ms",
    "speed-up",
    "95 %",
    "peak",
    "above resident",
    "kernels",
)


def plain(record: Record) -> str:
    """The record as lines of text under a title."""
    cells = [HEADINGS, *map(_cells, record.lines)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(HEADINGS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join((_title(record), "", *lines, "", *_remarks(record))) + "\n"


def markdown(record: Record) -> str:
    """The record as a markdown page."""
    rule = tuple("---" for _ in HEADINGS)
    table = ["| " + " | ".join(row) + " |" for row in (HEADINGS, rule, *map(_cells, record.lines))]
    remarks = [f"- {remark}" for remark in _remarks(record)]
    return "\n".join(("# Speed and memory", "", _title(record) + ".", "", *table, "", *remarks)) + "\n"


def _title(record: Record) -> str:
    pair = f"{record.candidate} against {record.reference}"
    return (
        f"{pair} ({record.kind}, preset {record.preset}), {record.device}, torch {record.environment.get('torch', '?')}"
    )


def _cells(line: Line) -> tuple[str, ...]:
    if line.ratio is None:
        speed, interval = "-", "-"
    else:
        speed = f"{line.ratio:.3g} ×" if line.ratio >= 0.1 else f"{line.ratio:.2g} ×"
        interval = "one after the other" if line.low is None else f"{line.low:.3f} … {line.high:.3f}"
    return (
        line.work,
        line.dtype,
        str(line.sizes["T"]),
        _time(line.reference),
        _time(line.candidate),
        speed,
        interval,
        _bytes(line.reference.peak_bytes, line.candidate.peak_bytes),
        _bytes(line.reference.above_bytes, line.candidate.above_bytes),
        f"{'+'.join(line.reference.kernels) or '-'} / {'+'.join(line.candidate.kernels) or '-'}",
    )


def _waits(side: Side) -> bool:
    return side.host_ms is not None and side.median_ms is not None and side.host_ms > side.median_ms


def _time(side: Side) -> str:
    return "does not fit" if side.refused else "-" if side.median_ms is None else f"{side.median_ms:.4g}"


def _bytes(before: int | None, after: int | None) -> str:
    change = f" ({100 * (after / before - 1):+.1f} %)" if before and after is not None else ""
    return f"{_mib(before)} / {_mib(after)} MiB{change}" if before is not None or after is not None else "not known"


def _mib(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**20:.4g}"


def _remarks(record: Record) -> Iterable[str]:
    yield "times are medians; original / candidate for memory and kernels; peak is what one alone needs in all"
    if not record.complete:
        yield "interrupted: not every row was measured"
    unsettled = [line for line in record.lines if line.low is not None and not line.settled]
    if unsettled:
        worst = max(line.standard_error or 0.0 for line in unsettled)
        yield (
            f"time ran out before the standard error came down to 0.5 % in {len(unsettled)} rows "
            f"(largest {100 * worst:.2g} %)"
        )
    waiting = [line for line in record.lines if any(_waits(side) for side in (line.reference, line.candidate))]
    if waiting:
        most = max(line.candidate.host_ms or 0.0 for line in waiting)
        yield (
            f"times are the GPU's own; in {len(waiting)} rows one of the two "
            "takes the host longer to launch than the GPU to run, "
            f"and by itself in a loop is only as fast as the host (candidate: up to {most:.2g} ms)"
        )
    for line in record.lines:
        for role, side in (("original", line.reference), ("candidate", line.candidate)):
            if side.refused:
                yield f"{line.work}, {line.dtype}, T={line.sizes['T']}: the {role} does not fit: {side.refused}"


def plotting() -> Any:
    """matplotlib's pyplot, set to draw to files; a UsageError if it is not installed."""
    try:
        import matplotlib
    except ImportError:
        raise UsageError(
            "--plots needs matplotlib, which is not installed: pip install 'equivcheck[report]', or leave --plots out"
        ) from None
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


def plot(record: Record, folder: Path) -> list[Path]:
    """Write speed.svg and memory.svg into `folder`, which is made if it is missing; a UsageError if that fails."""
    pyplot = plotting()
    from equivcheck.report.places import Place

    groups: dict[str, list[Line]] = {}
    for line in record.lines:
        groups.setdefault(f"{line.work}, {line.dtype}", []).append(line)
    written = []
    for name, draw in (("speed.svg", _draw_speed), ("memory.svg", _draw_memory)):
        figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
        draw(axes, groups)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xlabel("T, positions")
        axes.grid(alpha=0.3, which="both")
        axes.legend(fontsize="small")
        axes.set_title(f"{record.device}, torch {record.environment.get('torch', '?')}", fontsize="small")
        drawn = io.StringIO()
        figure.savefig(drawn, format="svg")
        pyplot.close(figure)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"--plots {folder}: cannot be made ({error.strerror or error}); give another folder"
            ) from None
        Place("--plots", folder / name, folder / name).save(drawn.getvalue())
        written.append(folder / name)
    return written


def _draw_speed(axes: Any, groups: dict[str, list[Line]]) -> None:
    for name, lines in groups.items():
        timed = [line for line in lines if line.ratio is not None]
        T, ratio = [line.sizes["T"] for line in timed], [line.ratio or 0.0 for line in timed]
        low = [(line.ratio or 0.0) - (line.low or line.ratio or 0.0) for line in timed]
        high = [(line.high or line.ratio or 0.0) - (line.ratio or 0.0) for line in timed]
        axes.errorbar(T, ratio, yerr=(low, high), marker="o", capsize=3, label=name)
    _mark_refused(axes, groups)
    axes.axhline(1.0, color="grey", linewidth=0.8)
    axes.set_ylabel("speed-up: original's time / candidate's")


def _draw_memory(axes: Any, groups: dict[str, list[Line]]) -> None:
    for name, lines in groups.items():
        for role, style in (("reference", "--"), ("candidate", "-")):
            points = [(line.sizes["T"], getattr(line, role)) for line in lines]
            known = [(T, side.above_bytes / 2**20) for T, side in points if side.above_bytes]
            label = f"{name}, {'original' if role == 'reference' else role}"
            axes.plot([T for T, _ in known], [y for _, y in known], style, marker="o", label=label)
    _mark_refused(axes, groups)
    axes.set_ylabel("peak memory above resident, MiB")


def _mark_refused(axes: Any, groups: dict[str, list[Line]]) -> None:
    lines: Sequence[Line] = [line for group in groups.values() for line in group]
    for role, name, colour in (("reference", "original", "tab:red"), ("candidate", "candidate", "black")):
        refused = [line.sizes["T"] for line in lines if getattr(line, role).refused]
        if refused:
            axes.axvline(min(refused), color=colour, linestyle=":", label=f"from here the {name} does not fit")
