"""A run begins with the last counterexamples of its pair: true findings, and apart from the drawn cases."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from quick_runs import REFERENCE
from test_first_cases import Recorder
from test_sealed import without_times
from torch import Tensor

from equivcheck.api import assert_equivalent, verify
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.errors import Mismatch
from equivcheck.report.closing_lines import verdict_line
from equivcheck.report.codec import dumps
from equivcheck.report.model import Report
from equivcheck.report.table import plain
from equivcheck.supervisor.memory import FOLDER, Entry, Memory, PairKey

OPTIONS: dict[str, Any] = {"device": "cpu", "profile": "quick", "checks": ["output"], "dtypes": ["float32"]}
SEALED = """
import os
from equivcheck.attention import FlashCausalSelfAttention

class Rare(FlashCausalSelfAttention):
    def forward(self, x):
        if x.size(1) == 5 and x.size(0) == 7:
            os._exit(3)
        return super().forward(x) * (1.1 if x.size(1) == 5 and x.size(0) == 6 else 1.0)
"""
RIGHT, SLANTED, DEADLY = (f"B{b}-T5-H1-D1-K5-float32-eval-a0-r0-sharpened-contiguous-s0" for b in (5, 6, 7))
"""Cases of more samples than a quick run draws."""


class Rare(FlashCausalSelfAttention):
    """Wrong where no drawn case is."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1.1 if x.size(1) == 5 and x.size(0) == 6 else 1.0)


class Slanted(FlashCausalSelfAttention):
    """Wrong everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 1.1


@pytest.fixture(autouse=True)
def _in_a_folder_of_a_desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CI", raising=False)


def key(candidate: str) -> PairKey:
    return PairKey(REFERENCE, candidate, "module", "cpu")


def remember(candidate: str, *cases: str, check: str = "output") -> None:
    Memory(Path(FOLDER).absolute()).keep(key(candidate), [Entry(check, case, "values") for case in cases])


def remembered(candidate: str) -> list[str]:
    return [entry.case for entry in Memory(Path(FOLDER).absolute()).entries(key(candidate))]


def judged(candidate: Any, **options: Any) -> tuple[Report, Recorder]:
    listener = Recorder()
    report = verify(CausalSelfAttention, candidate, listener=listener, **OPTIONS | {"remembered": True} | options)
    return report, listener


def of_drawn_cases(report: Report) -> dict[str, Any]:
    content = without_times(dumps(report))
    for name in ("remembered", "verdict", "equivalent", "levels", "differences", "exit_status", "exit_reason"):
        del content[name]
    return content


def test_the_next_run_begins_with_the_counterexample_of_the_last_one() -> None:
    first, _ = judged(Slanted)
    smallest = first.results[0].counterexample
    assert smallest is not None
    assert first.remembered == ()
    again, listener = judged(Slanted)
    assert listener.events[0][:4] == ("differs", "output", "values", smallest.case)
    assert [event[2] for event in listener.events if event[0] == "differs"] == ["values"]
    assert again.remembered is not None
    assert [r.outcome for r in again.remembered] == ["different"]
    assert plain(again).count("    replay: ") == 1
    assert "\n1 remembered counterexample: 1 differs\n" in plain(again)
    assert verdict_line(again).startswith("different at values: output, ")


def test_a_remembered_case_that_no_drawn_case_meets_is_a_difference() -> None:
    remember(f"{__name__}:Rare", SLANTED, RIGHT)
    without = verify(CausalSelfAttention, Rare, **OPTIONS)
    assert without.verdict == "equivalent"
    report, listener = judged(Rare)
    assert (report.verdict, report.levels["values"]) == ("different", "different")
    assert of_drawn_cases(report) == of_drawn_cases(without)
    assert report.sensitivity.planted
    assert listener.events[0][:4] == ("differs", "output", "values", SLANTED)
    text = plain(report)
    assert f"  output [values]: {SLANTED} (ratio" in text
    assert f"replay: equivcheck replay {SLANTED} {REFERENCE}" in text
    assert "\n2 remembered counterexamples: 1 differs, 1 passes now\n" in text
    assert f"  output: {RIGHT} passes now\n" in text
    assert text.splitlines()[-1].startswith("different at values: output on a remembered case, ")
    assert remembered(f"{__name__}:Rare") == [SLANTED, RIGHT]


def test_a_case_that_passes_now_is_reported_and_no_more() -> None:
    name = f"{FlashCausalSelfAttention.__module__}:FlashCausalSelfAttention"
    remember(name, SLANTED)
    report, listener = judged(FlashCausalSelfAttention)
    without = verify(CausalSelfAttention, FlashCausalSelfAttention, **OPTIONS)
    assert report.verdict == "equivalent"
    assert of_drawn_cases(report) == of_drawn_cases(without)
    assert without.remembered is None
    assert "\n1 remembered counterexample: 1 passes now\n" in plain(report)
    assert not [event for event in listener.events if event[0] == "differs"]
    assert remembered(name) == [SLANTED]


def test_a_run_that_fails_fast_ends_with_the_remembered_case() -> None:
    remember(f"{__name__}:Rare", SLANTED, RIGHT)
    report, listener = judged(Rare, fail_fast=True)
    assert (report.verdict, report.complete, report.results) == ("different", False, ())
    assert [event[0] for event in listener.events] == ["differs"]
    assert report.sensitivity.skipped == "the run is different"
    assert remembered(f"{__name__}:Rare") == [SLANTED, RIGHT]
    elsewhere, _ = judged(Rare, fail_fast=True, require="training")
    assert len(elsewhere.results) == 1


def test_a_declared_difference_stays_one_on_a_remembered_case() -> None:
    remember(f"{__name__}:Rare", SLANTED)
    report, listener = judged(Rare, deviations={"output": "wanted"})
    assert report.remembered is not None
    assert [r.outcome for r in report.remembered] == ["deviation"]
    assert report.levels["values"] == "equivalent"
    assert not [event for event in listener.events if event[0] == "differs"]


def test_the_message_of_an_assertion_has_the_remembered_case() -> None:
    remember(f"{__name__}:Rare", SLANTED)
    with pytest.raises(Mismatch, match=SLANTED):
        assert_equivalent(CausalSelfAttention, Rare, **OPTIONS, remembered=True, fail_fast=True)


def test_cases_that_can_never_be_run_are_forgotten_and_others_wait() -> None:
    name = f"{FlashCausalSelfAttention.__module__}:FlashCausalSelfAttention"
    of_half = RIGHT.replace("float32", "float16")
    masked = f"{RIGHT}-msome"
    outside = RIGHT.replace("T5", "T6").replace("K5", "K6")
    remember(name, "no case", RIGHT.replace("B5", "B05"), RIGHT, of_half, masked, outside)
    report, _ = judged(FlashCausalSelfAttention, domain="seq_len == 5")
    assert report.remembered is not None
    assert [r.worst_case for r in report.remembered] == [RIGHT]
    assert remembered(name) == [of_half, RIGHT]


def test_a_check_that_is_not_run_keeps_its_counterexamples() -> None:
    name = f"{FlashCausalSelfAttention.__module__}:FlashCausalSelfAttention"
    remember(name, RIGHT, check="gradients")
    report, _ = judged(FlashCausalSelfAttention)
    assert report.remembered == ()
    assert remembered(name) == [RIGHT]


def test_nothing_is_written_unless_it_is_asked_for() -> None:
    assert verify(CausalSelfAttention, Slanted, **OPTIONS).remembered is None
    assert list(Path().iterdir()) == []


def test_nothing_is_written_in_continuous_integration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    assert judged(Slanted)[0].remembered is None
    assert list(Path().iterdir()) == []


def test_a_pair_that_no_import_string_names_is_not_remembered() -> None:
    assert judged(partial(Slanted))[0].remembered is None
    assert list(Path().iterdir()) == []


def test_a_death_in_a_remembered_case_costs_that_case_alone() -> None:
    Path("sealed.py").write_text(SEALED)
    remember("sealed.py:Rare", DEADLY, SLANTED, RIGHT)
    report = verify(REFERENCE, "sealed.py:Rare", **OPTIONS, remembered=True)
    without = verify(REFERENCE, "sealed.py:Rare", **OPTIONS)
    assert report.remembered is not None
    assert [r.outcome for r in report.remembered] == ["different", "different", "equivalent"]
    dead = report.remembered[0].counterexample
    assert dead is not None
    assert "and again in a fresh process" in dead.message
    assert (report.verdict, report.complete) == ("different", True)
    assert of_drawn_cases(report) == of_drawn_cases(without)
    assert remembered("sealed.py:Rare") == [SLANTED, DEADLY, RIGHT]
    saved = json.loads((Path(FOLDER) / "counterexamples.json").read_text())
    assert saved["version"] == 1
