"""Runs that cannot judge everything: dtypes that are refused, bad input, no time left, and Ctrl-C."""

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from quick_runs import CANDIDATE, REFERENCE, here, quick, replay
from torch import Tensor

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS, CaseResult
from equivcheck.engine import plan
from equivcheck.errors import Mismatch, UsageError
from equivcheck.gpt import GPT

# --- what is refused -------------------------------------------------------------------------------------------------


class NotInHalf(FlashCausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        if x.dtype is torch.float16:
            raise NotImplementedError("no kernel for half")
        return super().forward(x)


def test_a_dtype_that_is_refused_as_a_whole_is_unsupported() -> None:
    report = quick(candidate=NotInHalf, checks=["interface", "checkpoint"])
    assert report.verdict == "equivalent"
    for result in report.results:
        assert result.unsupported == ("float16: NotImplementedError: no kernel for half",)
        assert "float16" not in result.visited["dtype"]


def test_a_candidate_that_refuses_every_dtype_is_not_equivalent() -> None:
    class Never(CausalSelfAttention):
        def forward(self, x: Tensor) -> Tensor:
            raise NotImplementedError("nowhere")

    report = quick(candidate=Never)
    assert [r.outcome for r in report.results] == ["different"]  # it refuses no dtype, it is broken
    assert not report.equivalent


def test_an_original_that_runs_nowhere_cannot_be_judged() -> None:
    class Nowhere(CausalSelfAttention):
        def forward(self, x: Tensor) -> Tensor:
            if torch.is_grad_enabled():
                raise NotImplementedError("nowhere")
            return super().forward(x)

    with pytest.raises(UsageError, match="refuses every case that was tried, first with NotImplementedError"):
        quick(Nowhere)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"checks": ["outputs"]}, "unknown check 'outputs' (did you mean 'output'?): equivcheck checks lists them"),
        ({"exclude": ["outputs"]}, "unknown check 'outputs'"),
        ({"profile": "fast"}, "unknown profile 'fast': allowed are screen, quick, gate, thorough"),
        ({"kind": "layer"}, "unknown kind 'layer'"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"exclude": ["interface"]}, "no check is left"),
        ({"deviations": {"outputs": "why not"}}, "unknown deviation 'outputs'"),
        ({"deviations": {"output": "  "}}, "deviation 'output' has no reason"),
        ({"candidate": "no_such_package:X"}, "cannot import 'no_such_package'"),
    ],
)
def test_bad_input_is_refused_in_one_line(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError) as refused:
        quick(**options)
    assert named in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_check_of_another_kind_is_refused_with_those_that_apply() -> None:
    with pytest.raises(UsageError, match="does not apply to a model: allowed are causality, interface"):
        quick(GPT, GPT, checks=["output"])


def test_a_case_id_that_does_not_parse_is_refused() -> None:
    with pytest.raises(UsageError, match="does not parse"):
        replay(REFERENCE, CANDIDATE, "B1-T3")


# --- runs that do not finish -----------------------------------------------------------------------------------------


def test_a_run_out_of_time_is_partial_and_says_after_how_many_cases() -> None:
    began = time.monotonic()
    report = quick(checks=["output", "gradients"], profile="thorough", max_seconds=1.0)
    assert time.monotonic() - began < 15
    assert report.verdict == "partial"
    assert not report.equivalent
    assert "out of time after" in report.results[0].detail
    assert report.results[0].cases < 2000


def with_check(monkeypatch: pytest.MonkeyPatch, name: str, run: Any) -> None:
    changed = tuple(replace(check, run=run) if check.name == name else check for check in CHECKS)
    monkeypatch.setattr(plan, "CHECKS", changed)


def test_control_c_ends_in_a_partial_report_of_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Case] = []

    def interrupted(pair: Any, case: Case) -> Any:
        seen.append(case)
        if len(seen) > 2:  # the first two cases are run before the rest of `interface`
            raise KeyboardInterrupt
        return CaseResult()

    with_check(monkeypatch, "checkpoint", interrupted)
    report = here(checks=["interface", "checkpoint"])
    assert report.verdict == "partial"
    assert not report.complete
    assert [r.name for r in report.results] == ["interface"]
    assert not report.sensitivity.planted


def test_control_c_while_shrinking_does_not_lose_the_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    failed: list[Case] = []

    def failing(pair: Any, case: Case) -> Any:
        if failed:
            raise KeyboardInterrupt
        if case.seq_len > 1:
            failed.append(case)
            raise Mismatch("planted", ratio=2.0)
        return CaseResult()

    with_check(monkeypatch, "interface", failing)
    report = here()
    assert report.verdict == "different"
    assert not report.complete
    assert report.results[0].counterexample is not None
    assert report.results[0].worst_ratio == 2.0
