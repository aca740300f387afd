"""How long a case may take, and how much memory a worker may use."""

import math
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CaseTimes", "free_bytes"]

_LEAST_S = 60.0
_TIMES = 20.0
_COMPILING = ("compile",)  # checks in which a compiler works
_TIMES_COMPILING = 5.0
_LEAST_SHORT_S, _SHARE_SHORT = 5.0, 1 / 6
_SHARE_OF_FREE = 0.8


@dataclass
class CaseTimes:
    """The time limit of a case: the user's, else twenty times the slowest so far, scaled by the work of the case."""

    given_s: float | None = None
    _slowest_s: float = 0.0
    _work: float = 1.0

    def add(self, work: float, seconds: float) -> None:
        """Record the time of a case."""
        if seconds > self._slowest_s:
            self._slowest_s, self._work = seconds, max(1.0, work)

    def limit_s(self, work: float, check: str = "") -> float:
        """The time limit of a case with this much work."""
        times = _TIMES_COMPILING if check in _COMPILING else 1.0
        if self.given_s is not None:
            return self.given_s * times
        return times * max(_LEAST_S, _TIMES * self._slowest_s * max(1.0, work / self._work))

    def short_s(self, work: float, check: str = "") -> float:
        """The shorter limit while a counterexample is made small, or after a hang was confirmed."""
        limit = self.limit_s(work, check)
        return min(limit, max(_LEAST_SHORT_S, _SHARE_SHORT * limit))


def free_bytes() -> float:
    """The memory that a worker may use by default: a share of the free memory of the machine and its control group."""
    free = math.inf
    with suppress(OSError, ValueError, IndexError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    with suppress(OSError, ValueError, IndexError):
        group = Path("/sys/fs/cgroup") / Path("/proc/self/cgroup").read_text().strip().rpartition("::")[2].lstrip("/")
        free = min(free, int((group / "memory.max").read_text()))  # the group's present use may be cached files
    if free == math.inf and hasattr(os, "sysconf"):
        with suppress(OSError, ValueError):
            free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return _SHARE_OF_FREE * free
