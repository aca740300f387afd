"""A judge that answers with a report at once, the reports that it answers with, and the line that a command writes."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from equivcheck.report.model import CheckResult, Counterexample, Report, Sensitivity
from equivcheck.supervisor.request import Request
from equivcheck.supervisor.sealed import NamedPair

CASE = "B1-T3-H1-D4-K4-float32-eval-a0-r0-sharpened-contiguous-s0"


OUTPUT = CheckResult("output", "equivalent", 60, 1.5, 0.412, CASE, "y[0, 2, 1]")


BROKEN = replace(
    OUTPUT,
    outcome="different",
    counterexample=Counterexample(CASE, "3 of 12 values differ", f"equivcheck replay {CASE}"),
)


EQUIVALENT = Report(
    reference="a:A",
    candidate="b:B",
    kind="module",
    device="cpu",
    profile="gate",
    seed=0,
    results=(OUTPUT,),
    sensitivity=Sensitivity(("mask_off_by_one",)),
    complete=True,
    seconds=41.23,
    created="2026-01-02T03:04:05+00:00",
)


DIFFERENT = replace(EQUIVALENT, results=(BROKEN,))


INSENSITIVE = replace(EQUIVALENT, sensitivity=Sensitivity(("mask_off_by_one",), ("mask_off_by_one",)))


PARTIAL = replace(EQUIVALENT, complete=False)


class Judge:
    """Stands where the supervisor does: answers with a report, or raises, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answer: Any = EQUIVALENT
        self.calls: list[tuple[tuple[Any, ...], dict[str, Any]]] = []

    def verify(self, pair: NamedPair, request: Request, **options: Any) -> Any:
        return self.replay(pair, **vars(request), **options)

    def replay(self, pair: NamedPair, *case: str, **options: Any) -> Any:
        options |= {"kind": pair.kind, "device": pair.device, "setup": pair.setup, **pair.adaptation}
        listener = options.pop("listener", None)
        for name in ("keep", "signals", "dtypes", "shared"):
            options.pop(name, None)
        self.calls.append(((pair.reference, pair.candidate, *case), options))
        if isinstance(self.answer, BaseException):
            raise self.answer
        if listener is not None:
            for result in self.answer.results:
                listener.progress(result.name, 0, result.cases)
                listener.progress(result.name, result.cases, result.cases)
                listener.finished(result)
            listener.progress("sensitivity", 1, 1)
        return self.answer


def the_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on standard error, without what it begins with."""
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert lines[0].startswith("equivcheck: ")
    return lines[0].removeprefix("equivcheck: ")


def python(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, check=False, timeout=300, **options
    )
