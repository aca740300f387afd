"""The first cases of every check come first, and a difference that they show shortens the checks that add nothing."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from quick_runs import REFERENCE, WRONG
from test_sealed import without_times
from torch import Tensor

from equivcheck.api import verify
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.checks import CHECKS, CaseResult
from equivcheck.engine.search import Search
from equivcheck.engine.strata import classes, first_look, spaces_of
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.resolve import resolve
from equivcheck.report.closing_lines import verdict_line
from equivcheck.report.codec import dumps
from equivcheck.report.model import CheckResult, Report
from equivcheck.report.table import plain

CHECKED: dict[str, Any] = {"device": "cpu", "profile": "quick", "checks": ["output", "gradients", "causality", "modes"]}


class Slanted(CausalSelfAttention):
    """Wrong by a hundredth everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 1.01


class SlantedWhenLong(CausalSelfAttention):
    """Wrong where the first cases of no check are."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y * 1.01 if x.size(1) > 34 and x.size(0) > 1 else y


class Recorder:
    """A listener that keeps what it is given, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, ...]] = []
        self.counts: list[dict[str, int]] = [{}]

    def progress(self, stage: str, done: int, total: int) -> None:
        self.counts.append(self.counts[-1] | {stage: done})

    def finished(self, result: CheckResult) -> None:
        self.events.append(("finished", result.name))

    def differs(self, check: str, level: str, case: str, message: str) -> None:
        self.events.append(("differs", check, level, case, message))


def judged(candidate: Any, **options: Any) -> tuple[Report, Recorder]:
    listener = Recorder()
    return verify(CausalSelfAttention, candidate, listener=listener, **CHECKED | options), listener


def test_every_check_runs_two_cases_before_any_runs_a_third() -> None:
    _, listener = judged(FlashCausalSelfAttention)
    third = next(c for c in listener.counts if any(count > 2 for count in c.values()))
    assert {name: min(count, 2) for name, count in third.items()} == dict.fromkeys(CHECKED["checks"], 2)


def test_the_first_cases_are_those_that_the_whole_check_draws_first() -> None:
    subject = resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="module", device="cpu")
    for check in [check for check in CHECKS if "module" in check.kinds]:
        planned = check.cases["quick"]
        drawn_from = classes(check, subject, DTYPES, planned)
        numbers = first_look([space for space, _ in spaces_of(check, subject, DTYPES, planned)])
        assert len(numbers) == 2
        for number in set(numbers):
            few, whole = (
                Search(check, subject, planned, 0, math.inf, most=most) for most in (numbers.count(number), math.inf)
            )
            for search in (few, whole):
                search.check = replace(check, run=lambda pair, case: CaseResult())
                search.run(drawn_from, 0, only=number)
            first = list(few.passed)
            assert len(first) == min(numbers.count(number), len(whole.passed))
            assert first == list(whole.passed)[: len(first)], check.name


def test_the_first_difference_is_given_before_it_is_made_small() -> None:
    report, listener = judged(Slanted)
    kind, check, level, case, message = listener.events[0]
    assert (kind, check, level) == ("differs", "output", "values")
    assert "times further from the oracle" in message
    smallest = report.results[0].counterexample
    assert smallest is not None
    assert smallest.case != case
    assert [event[2] for event in listener.events if event[0] == "differs"] == ["values", "training"]


def test_a_difference_at_a_level_that_is_not_required_is_not_given() -> None:
    _, listener = judged(Slanted, require="training")
    assert [event[2] for event in listener.events if event[0] == "differs"] == ["training"]


def test_a_listener_of_two_methods_is_enough() -> None:
    class Old:
        def progress(self, stage: str, done: int, total: int) -> None: ...
        def finished(self, result: CheckResult) -> None: ...

    assert verify(CausalSelfAttention, Slanted, listener=Old(), **CHECKED).verdict == "different"


def test_a_declared_difference_is_not_given_as_one() -> None:
    _, listener = judged(Slanted, checks=["output"], deviations={"output": "wanted"})
    assert not [event for event in listener.events if event[0] == "differs"]


def test_of_checks_of_a_level_that_is_different_the_first_cases_are_run() -> None:
    report, _ = judged(Slanted)
    output, gradients, causality, modes = report.results
    assert not output.shortened
    assert [(r.shortened, r.cases) for r in (gradients, causality)] == [(True, 2)] * 2
    assert (modes.shortened, modes.levels) == (
        True,
        {"values": "different", "training": "not judged", "drop-in": "not judged"},
    )
    text = plain(report)
    assert text.count("    replay: ") == 1
    assert "  gradients: B2-" in text.partition("also different:")[2]
    assert "shortened: of gradients, causality, modes only the first cases were run" in text
    assert verdict_line(report).startswith("different at values: output, and so are 3 more checks, ")


def test_all_cases_are_run_where_that_is_asked_for() -> None:
    report, _ = judged(Slanted, all_cases=True)
    assert not any(result.shortened for result in report.results)
    assert plain(report).count("    replay: ") == 4


def test_a_late_difference_shortens_the_checks_of_its_level_alone() -> None:
    report, _ = judged(SlantedWhenLong)
    shortened = {result.name: result.shortened for result in report.results}
    assert shortened == {"output": False, "gradients": True, "causality": True, "modes": False}
    assert report.results[1].cases == 2
    assert report.levels["training"] == "equivalent"


def test_a_run_that_fails_fast_ends_at_the_first_difference() -> None:
    report, listener = judged(Slanted, fail_fast=True)
    assert [result.name for result in report.results] == ["output"]
    assert (report.verdict, report.complete) == ("different", False)
    assert [event for event in listener.events if event[0] == "finished"] == [("finished", "output")]


def test_a_difference_at_another_level_does_not_end_a_run_that_fails_fast() -> None:
    report, _ = judged(Slanted, fail_fast=True, require="transforms")
    assert len(report.results) == 4


@pytest.mark.parametrize("candidate", ["Scaled", "WrongOffTheTile"])
def test_two_processes_make_the_same_report_as_one(
    candidate: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    monkeypatch.chdir(tmp_path)
    one, two = (verify(REFERENCE, f"wrong.py:{candidate}", jobs=jobs, **CHECKED) for jobs in (1, 2))
    assert one.verdict == "different"
    assert without_times(dumps(one)) == without_times(dumps(two))
