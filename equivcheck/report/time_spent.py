"""The time that a run spent, by part of the judging and by check, and its sum over the processes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from equivcheck.runtime.clock import PARTS

__all__ = ["Account", "TimeSpent"]


@dataclass(frozen=True)
class TimeSpent:
    """The seconds of all processes that ran the pair; each second counts once, for the innermost part."""

    parts: Mapping[str, float] = field(default_factory=dict)
    stages: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def total_s(self) -> float:
        """The seconds of all parts together."""
        return sum(self.parts.values())


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
