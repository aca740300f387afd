"""The outcomes of a run's checks, and what planting, the report and the look back take from them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from equivcheck.report.model import CheckResult
from equivcheck.report.outcomes import Searched, kernels_by_dtype

__all__ = ["Checked"]


@dataclass(kw_only=True)
class Checked:
    """The outcomes of the checks of one run.

    Attributes:
        results: The results of the finished checks, in the order of the plan.
    """

    results: list[CheckResult]
    _plan: Mapping[str, Any] = field(default_factory=dict)
    _searched: dict[str, Searched] = field(default_factory=dict)

    def kernels(self) -> dict[str, str]:
        """The kernels that ran, by dtype."""
        return kernels_by_dtype(self._searched.get("backend"))

    def judged(self) -> dict[str, dict[str, Any]]:
        """Name of a check -> the number of planned cases, the judged and failed cases, and whether one failed."""
        planned = {c["name"]: c["planned"] for c in self._plan["checks"]}
        # a check with a declared deviation stops at its difference: it cannot show which faults it would detect
        ran = {
            result.name: {
                "planned": planned[result.name],
                "cases": [*(o.case for o in s.passed.values() if o.judged), *s.failed],
                "failed": bool(s.failed),
            }
            for result in self.results
            if result.outcome != "deviation" and (s := self._searched[result.name]).cases
        }
        return {name: of for name, of in ran.items() if of["cases"]}

    def cases_of_original(self) -> list[str]:
        """Three cases on which the original is run again: the first, the middle and the last that passed by value."""
        for name in ("gradients", "logits", "output", *self._searched):
            passed = list(self._searched[name].passed) if name in self._searched else []
            if passed:
                return [passed[at] for at in sorted({0, len(passed) // 2, len(passed) - 1})]
        return []
