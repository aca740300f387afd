"""A pair's checks as a pytest class: one test per check and device, for projects that import the checks."""

import sys
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytest

from equivcheck.comparison import Mismatch
from equivcheck.kinds import resolve
from equivcheck.report.model import Deviation, Report
from equivcheck.verify import choose, verify

__all__ = ["suite"]


def suite(
    reference: Any,
    candidate: Any,
    *,
    kind: str = "auto",
    profile: str = "quick",
    checks: Sequence[str] | None = None,
    exclude: Iterable[str] = (),
    seed: int = 0,
    max_seconds: float | None = None,
    deviations: Mapping[str, str | Deviation] | None = None,
) -> type:
    """A class for pytest to collect: `TestFast = equivcheck.suite(Slow, Fast)`.

    Each test runs one check, and plants the faults that this check should see. On CUDA the tests carry the marker `gpu` and
    run with `pytest --gpu`. Arguments are those of `verify`; a UsageError for what does not fit.
    """
    found = resolve(reference, candidate, kind=kind, device="cpu").kind
    names = [check.name for check in choose(checks, tuple(exclude), found) if check.judges]

    @pytest.mark.parametrize("equivcheck_device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
    @pytest.mark.parametrize("check", names)
    class TestEquivalence:
        def test_holds(self, check: str, equivcheck_device: str) -> None:
            report = verify(
                reference,
                candidate,
                kind=found,
                device=equivcheck_device,
                profile=profile,
                checks=[check],
                seed=seed,
                max_seconds=max_seconds,
                deviations={name: reason for name, reason in (deviations or {}).items() if name == check},
            )
            if not report.equivalent and report.results[0].outcome != "deviation":
                raise _short(report) from None

    return TestEquivalence


def _short(report: Report) -> Mismatch:
    """The failure as a short assertion: what, how far over budget, the case and the line that replays it."""
    result = report.results[0]
    if result.counterexample is None:
        survived = ", ".join(report.sensitivity.survived) or "none was planted"
        return Mismatch(f"{result.name} is {report.verdict}: planted faults that were not seen: {survived}")
    c = result.counterexample
    return Mismatch(f"{result.name}: {c.message}\ncase {c.case}\n{c.replay}", ratio=c.ratio or 0.0)


class _CallableModule(types.ModuleType):
    """As in `verify`: `equivcheck.suite` names this module once somebody has imported it by name; call either."""

    def __call__(self, reference: Any, candidate: Any, **options: Any) -> type:
        return suite(reference, candidate, **options)


sys.modules[__name__].__class__ = _CallableModule
