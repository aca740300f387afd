"""Records of benchmarks, made by hand, and a size that takes no time."""

from dataclasses import replace
from typing import Any

from equivcheck.bench.presets import Size
from equivcheck.bench.record import Line, Record, Side

TINY = Size(2, 16, 2, 8, 1, 16, 11, 0.1)


def line(name: str = "row", ratio: float | None = 2.0, width: float = 0.01, **changes: Any) -> Line:
    bounds = {} if ratio is None else {"low": ratio * (1 - width), "high": ratio * (1 + width)}
    side = Side(kernels=("flash",), median_ms=1.0, lower_ms=0.9, upper_ms=1.1, repetitions=5, above_bytes=2**20)
    made = Line(name, "attention", "float32", {"T": 16}, side, side, ratio, standard_error=0.001, **bounds)
    return replace(made, **changes)


def record(*lines: Line, **changes: Any) -> Record:
    made = Record("slow", "fast", "module", "cpu", "small", lines, True, 1.0, "now", {"torch": "2.13.0+cpu"})
    return replace(made, **changes)
