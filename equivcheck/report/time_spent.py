"""The time that a run spent, by part of the judging and by check, as data and as lines of text."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from equivcheck.report.clean_text import one_line
from equivcheck.runtime.clock import PARTS

__all__ = ["Account", "TimeSpent"]

_MOST_STAGES = 5  # that are named in the text


@dataclass(frozen=True)
class TimeSpent:
    """The seconds of all processes that ran the pair; each second counts once, for the innermost part."""

    parts: Mapping[str, float] = field(default_factory=dict)
    stages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def total_s(self) -> float:
        """The seconds of all parts together."""
        return sum(self.parts.values())

    @property
    def rows(self) -> list[tuple[str, str, str]]:
        """Part, share and seconds as text, in the order of `PARTS`; the last row is the whole."""
        total = self.total_s
        known = [(part, self.parts[part]) for part in PARTS if part in self.parts]
        cells = [(part, _share(seconds, total), f"{seconds:.1f}") for part, seconds in known]
        return [*cells, ("all", _share(total, total), f"{total:.1f}")]

    @property
    def by_stage(self) -> list[tuple[str, float]]:
        """The stages with their seconds, the longest first."""
        sums = {stage: sum(parts.values()) for stage, parts in self.stages.items()}
        return sorted(sums.items(), key=lambda item: (-item[1], item[0]))

    @property
    def lines(self) -> list[str]:
        """A short table in aligned lines, and a line that names the longest stages."""
        table = [("time spent, all processes", "share", "seconds"), *self.rows]
        widths = [max(len(row[column]) for row in table) for column in range(3)]
        lines = [
            f"{part.ljust(widths[0])}  {share.rjust(widths[1])}  {seconds.rjust(widths[2])}"
            for part, share, seconds in table
        ]
        return [*lines, *([self.longest] if self.stages else [])]

    @property
    def longest(self) -> str:
        """The longest stages in one line."""
        named = ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in self.by_stage[:_MOST_STAGES])
        return one_line(f"longest: {named}")


class Account:
    """Adds up the seconds that processes report."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._stages: dict[str, dict[str, float]] = {}

    def add(self, seconds: Any) -> None:
        """Add one process's seconds by stage and part; what is no such data is left out, as code under test may send it.

        Args:
            seconds: Stage -> part of `PARTS` -> seconds.
        """
        for stage, parts in seconds.items() if isinstance(seconds, dict) else ():
            for part, value in parts.items() if isinstance(parts, dict) else ():
                if part in PARTS and isinstance(value, int | float) and 0 <= value < math.inf:
                    of_stage = self._stages.setdefault(str(stage), {})
                    of_stage[part] = of_stage.get(part, 0.0) + value

    def so_far(self) -> TimeSpent:
        """The sums until now."""
        stages = {stage: dict(parts) for stage, parts in self._stages.items()}
        parts = {part: sum(of_stage.get(part, 0.0) for of_stage in stages.values()) for part in PARTS}
        return TimeSpent(parts, stages)


def _share(seconds: float, total: float) -> str:
    return f"{100 * seconds / total:.0f} %" if total > 0 else "-"
