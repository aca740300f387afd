"""Speed-up and memory as plots: SVG that takes its text colour from the page around it."""

import io
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from equivcheck.report.model import Timing

__all__ = ["Plot", "draw"]

Plot = tuple[str, str, str]  # name, description, SVG

MISSING = (
    "Plots need matplotlib, which is not installed: pip install 'equivcheck[report]', and render the report again."
)
_INK = "#010203"  # replaced by the text colour of the page
_COLOURS = ("#0b7285", "#c2410c", "#7048a8", "#2b7a0b", "#b8256e", "#8a6d00")  # 3:1 at least on white and on near-black
_MARKS = "osD^vP"
_WIDTH_IN, _ROW_IN = 7.0, 0.42


def draw(records: Mapping[str, Timing]) -> tuple[list[Plot], str]:
    """The plots of these records, and a sentence that names what is missing for them, or an empty text."""
    speed = {name: r for name, r in records.items() if r.speed_up is not None}
    memory = {name: r for name, r in records.items() if r.reference_bytes or r.candidate_bytes}
    if not speed and not memory:
        return [], ""
    try:
        import matplotlib
    except ImportError:
        return [], MISSING
    settings: dict[Any, Any] = {
        "svg.fonttype": "none",
        "text.parse_math": False,
        "font.family": "sans-serif",
        "font.size": 10.0,
    }
    inked: tuple[Any, ...] = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    plots = []
    for name, words, plotted, paint in (
        ("speed-up", "Speed-up: time of the reference over time of the candidate", speed, _speed),
        ("memory", "Peak memory of reference and candidate above what is resident", memory, _memory),
    ):
        if plotted:
            with matplotlib.rc_context({**settings, **dict.fromkeys(inked, _INK), "svg.hashsalt": "equivcheck"}):
                plots.append((name, words, _svg(name, plotted, paint)))
    return plots, ""


def _svg(name: str, records: Mapping[str, Timing], paint: Callable[[Any, Mapping[str, Timing]], None]) -> str:
    from matplotlib.figure import Figure

    height = 4.6 if _has_lengths(records) else 1.2 + _ROW_IN * len(records)
    figure = Figure(figsize=(_WIDTH_IN, height), layout="constrained")
    figure.patch.set_alpha(0.0)
    axes = figure.add_subplot()
    axes.patch.set_alpha(0.0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25, color=_INK)
    paint(axes, records)
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]  # no prolog and no doctype within a page
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # an id is unique on the page, which has another plot
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{name}-", svg)
    return svg.replace(_INK, "currentColor")


def _speed(axes: Any, records: Mapping[str, Timing]) -> None:
    if _along_lengths(axes, records, lambda record: record.speed_up):
        axes.axhline(1.0, color=_INK, linewidth=1, linestyle=":")
        axes.set_ylabel("speed-up")
        return
    names = list(records)
    for row, name in enumerate(names):
        record = records[name]
        value = record.speed_up or 0.0
        low, high = record.speed_up_low, record.speed_up_high
        error = [[value - low], [high - value]] if low is not None and high is not None else None
        axes.barh(row, value, xerr=error, color=_COLOURS[0], height=0.6, ecolor=_INK)
        end = value if high is None else max(value, high)  # past the interval, whose line would run through the number
        axes.annotate(f"{value:.2f} ×", (end, row), (6, 0), textcoords="offset points", va="center")
    axes.axvline(1.0, color=_INK, linewidth=1, linestyle=":")
    axes.margins(x=0.15)
    _name_rows(axes, names)
    axes.set_xlabel("speed-up")


def _memory(axes: Any, records: Mapping[str, Timing]) -> None:
    def reference(record: Timing) -> float | None:
        return _mib(record.reference_bytes)

    def candidate(record: Timing) -> float | None:
        return _mib(record.candidate_bytes)

    if _along_lengths(axes, records, reference, "reference", "--"):
        _along_lengths(axes, records, candidate, "candidate")
        axes.set_ylabel("memory, MiB")
        return
    names = list(records)
    for row, name in enumerate(names):
        for shift, colour, which, value in (
            (-0.19, _COLOURS[1], "reference", reference(records[name])),
            (0.19, _COLOURS[0], "candidate", candidate(records[name])),
        ):
            axes.barh(row + shift, value or 0.0, height=0.36, color=colour, label=which if row == 0 else None)
    _name_rows(axes, names)
    axes.set_xlabel("memory, MiB")
    axes.legend(frameon=False, loc="upper center", bbox_to_anchor=(0.4, -0.25), ncols=2)


def _along_lengths(
    axes: Any, records: Mapping[str, Timing], value: Callable[[Timing], float | None], which: str = "", style: str = "-"
) -> bool:
    """Draw one line per series over T, on two logarithmic axes; return False, with nothing drawn, for a single T."""
    if not _has_lengths(records):
        return False
    from matplotlib.ticker import LogLocator

    series: dict[str, list[tuple[int, float]]] = {}
    for record in records.values():
        y_value = value(record)
        points = series.setdefault(f"{record.what}, {record.dtype}", [])
        if y_value is not None:
            points.append((record.seq_len, y_value))
    for number, (name, points) in enumerate(series.items()):
        if points:
            x, y = zip(*sorted(points), strict=True)
            colour, mark = _COLOURS[number % len(_COLOURS)], _MARKS[number % len(_MARKS)]
            axes.plot(x, y, style, marker=mark, color=colour, label=f"{name}, {which}" if which else name)
    axes.set(xscale="log", yscale="log", xlabel="sequence length T")
    lengths = sorted({record.seq_len for record in records.values()})
    axes.set_xticks(lengths, [_thousands(length) for length in lengths])
    axes.minorticks_off()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:,g}")  # the default one writes TeX
    axes.legend(
        frameon=False,
        fontsize=8,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.18),
        ncols=1 if max(map(len, series)) > 36 else 2,
    )
    return True


def _has_lengths(records: Mapping[str, Timing]) -> bool:
    """Whether something was measured at more than one length."""
    series: dict[tuple[str, str], set[int]] = {}
    for record in records.values():
        series.setdefault((record.what, record.dtype), set()).add(record.seq_len)
    return any(len(lengths) > 1 for lengths in series.values())


def _name_rows(axes: Any, names: Iterable[str]) -> None:
    shown = [name if len(name) <= 48 else f"{name[:47]}…" for name in names]
    axes.set_yticks(range(len(shown)), shown)
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")


def _thousands(length: int) -> str:
    return f"{length // 1024}k" if length >= 1024 and length % 1024 == 0 else str(length)


def _mib(size: int | None) -> float | None:
    return None if size is None else size / 2**20
