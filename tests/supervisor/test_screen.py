"""A screen refutes with few cases, and never says that two attentions are the same."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from quick_runs import CANDIDATE, REFERENCE, WRONG
from torch import Tensor

from equivcheck.api import verify
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.checks import CHECKS
from equivcheck.cli.main import main
from equivcheck.engine.gate.verdict import GatePolicy, violations
from equivcheck.engine.strata import spaces_of
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.resolve import resolve
from equivcheck.report.catalogue import PROFILES
from equivcheck.report.codec import dumps, loads
from equivcheck.report.model import Report
from equivcheck.report.page import sentence
from equivcheck.report.table import plain

FEW = ["output", "gradients", "modes", "interface"]
NAMED = [f"--check={name}" for name in FEW]


def screen(candidate: Any, **options: Any) -> Report:
    return verify(CausalSelfAttention, candidate, **{"device": "cpu", "profile": "screen", "checks": FEW, **options})


class Slanted(CausalSelfAttention):
    """Wrong by a hundredth everywhere."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 1.01


def test_a_screen_of_the_right_one_refutes_nothing_and_says_no_more() -> None:
    report = screen(FlashCausalSelfAttention)
    assert report.verdict == "not refuted"
    assert not report.equivalent
    assert {result.outcome for result in report.results} == {"not refuted"}
    assert report.levels["values"] == report.levels["training"] == report.levels["drop-in"] == "not refuted"
    assert report.sensitivity.planted == ()
    assert report.sensitivity.skipped
    assert not any(result.shortened for result in report.results)
    assert {result.name: result.cases for result in report.results}["modes"] == 4
    for text in (plain(report), sentence(report)):
        assert "equivalent" not in text
        assert "same attention" not in text
    assert loads(dumps(report)) == report


def test_a_difference_in_a_screen_is_made_small_and_counts() -> None:
    report = screen(Slanted)
    assert report.verdict == "different"
    assert report.levels["values"] == "different"
    assert report.results[0].counterexample is not None
    assert report.results[0].counterexample.case.startswith("B1-T1-H1-D1")


def test_a_screen_is_the_smallest_profile_of_every_check() -> None:
    assert PROFILES == ("screen", "quick", "gate", "thorough")
    subject = resolve(REFERENCE, CANDIDATE, kind="module", device="cpu")
    counts = [
        sum(count for _, count in spaces_of(check, subject, DTYPES, 1, profile="screen"))
        for check in CHECKS
        if "module" in check.kinds
    ]
    assert min(counts) == 1
    assert sum(counts) <= 48


def test_a_screen_stays_in_the_domain() -> None:
    report = screen(CANDIDATE, domain="head_size == 8 and seq_len == 16 and n_head == 2 and batch_size == 1")
    assert report.verdict == "not refuted"
    assert {result.worst_case.partition("-K")[0] for result in report.results if result.worst_case} == {"B1-T16-H2-D8"}


@pytest.mark.parametrize(
    ("candidate", "status", "word"), [(CANDIDATE, 2, "not refuted"), ("wrong.py:Scaled", 1, "different")]
)
def test_the_exit_status_of_a_screen_is_2_or_1(
    candidate: str,
    status: int,
    word: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "wrong.py").write_text(WRONG)
    monkeypatch.chdir(tmp_path)
    line = ["verify", REFERENCE, candidate, "--profile", "screen", "--device", "cpu", *NAMED]
    assert main(line) == status
    assert capsys.readouterr().out.splitlines()[-1].startswith(word)


def test_the_gate_refuses_the_report_of_a_screen() -> None:
    report = replace(screen(FlashCausalSelfAttention), created=datetime.now(UTC).isoformat(timespec="seconds"))
    for least in ("gate", "screen"):
        reasons = [*violations({"report.json": report}, GatePolicy(min_profile=least))]
        assert any("not refuted: a screen never says equivalent" in reason for reason in reasons)
        assert any("profile screen where gate is required" in reason for reason in reasons) is (least == "gate")
