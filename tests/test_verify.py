"""A run: what it reports, how small its counterexamples are, and what it says when it would not have noticed."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from equivcheck import api as module
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS, CaseResult
from equivcheck.engine import plan, planting
from equivcheck.errors import Mismatch, UsageError
from equivcheck.gpt import GPT
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.report.model import Report

verify, replay, assert_equivalent = module.verify, module.replay, module.assert_equivalent

REFERENCE = "equivcheck.attention:CausalSelfAttention"
CANDIDATE = "equivcheck.attention:FlashCausalSelfAttention"

WRONG = """
import math
import torch
import torch.nn.functional as F
from equivcheck.attention import CausalSelfAttention

class OffByOne(CausalSelfAttention):
    def __init__(self, config):
        super().__init__(config)
        self.mask = torch.ones_like(self.mask).tril(1)

    def load_state_dict(self, state, strict=True):
        return super().load_state_dict({n: self.mask if n == "mask" else t for n, t in state.items()}, strict)

class Scaled(CausalSelfAttention):
    def forward(self, x):
        T = x.size(1)
        q, k, v = self._heads(x)
        att = (q @ k.mT) / math.sqrt(x.size(-1))
        att = att.masked_fill(self.mask[:, :, :T, :T] == 0, -math.inf)
        return self._merge(self.attn_drop(F.softmax(att, -1)) @ v)

class DroppingInEval(CausalSelfAttention):
    def forward(self, x):
        q, k, v = self._heads(x)
        return self._merge(F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=self.attn_drop.p))

class Detaching(CausalSelfAttention):
    def _heads(self, x):
        q, k, v = super()._heads(x)
        return q, k.detach(), v

class WrongOffTheTile(CausalSelfAttention):
    def forward(self, x):
        y = super().forward(x)
        return y * 1.1 if x.size(1) % 32 else y

class WrongFrom257(CausalSelfAttention):
    def forward(self, x):
        y = super().forward(x)
        return y * 1.1 if x.size(1) > 256 else y
"""


@pytest.fixture
def wrong(tmp_path: Path) -> str:
    file = tmp_path / "wrong.py"
    file.write_text(WRONG)
    return str(file)


@pytest.fixture
def unplanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the search alone: faults cost time, and their absence makes no difference to a difference."""
    monkeypatch.setattr(planting, "planted", lambda *_: [])


def quick(reference: Any = REFERENCE, candidate: Any = CANDIDATE, **options: Any) -> Report:
    return verify(reference, candidate, **({"device": "cpu", "profile": "quick", "checks": ["interface"]} | options))


def here(**options: Any) -> Report:
    """As `quick`, in this process, in which a test has changed something."""
    return quick(CausalSelfAttention, FlashCausalSelfAttention, **options)


# --- the report ------------------------------------------------------------------------------------------------------


def test_the_shipped_pair_is_equivalent_and_the_run_would_have_noticed() -> None:
    report = quick(checks=["output", "checkpoint", "purity"])
    assert report.verdict == "equivalent"
    assert report.equivalent
    assert [r.name for r in report.results] == ["output", "checkpoint", "purity"]
    assert all(r.outcome == "equivalent" for r in report.results)
    assert len(report.sensitivity.planted) >= 10
    assert not report.sensitivity.survived
    assert set(report.sensitivity.caught_by) == set(report.sensitivity.planted)
    assert (report.reference, report.candidate, report.kind, report.device) == (REFERENCE, CANDIDATE, "module", "cpu")
    assert report.environment["torch"] == torch.__version__
    assert set(report.sources) == {"equivcheck"} or len(report.sources["equivcheck"]) == 64
    output = report.results[0]
    assert 0 < output.worst_ratio <= 1  # type: ignore[operator]
    assert Case.parse(output.worst_case or "")


def test_what_was_visited_is_recorded() -> None:
    (result,) = quick(checks=["output"]).results
    assert result.cases > 20
    for dimension in ("dtype", "regime", "mode", "layout", "length"):
        assert sum(result.visited[dimension].values()) == result.cases
    assert set(result.visited["dtype"]) <= set(DTYPES)
    assert len(result.visited["regime"]) > 3


@pytest.mark.usefixtures("unplanted")
def test_the_same_seed_gives_the_same_report_and_another_one_other_cases() -> None:
    def plain(report: Report) -> list[Any]:
        return [replace(result, seconds=0.0) for result in report.results]

    one = quick(checks=["output", "interface"], seed=3)
    assert plain(one) == plain(quick(checks=["output", "interface"], seed=3))
    assert plain(one) != plain(quick(checks=["output", "interface"], seed=4))


@pytest.mark.parametrize(
    "check", [check.name for check in CHECKS if "module" in check.kinds and check.name != "long" and check.judges]
)
def test_a_run_of_one_check_alone_plants_faults_that_this_check_sees(check: str) -> None:
    report = quick(checks=[check])
    assert report.verdict == "equivalent", report.sensitivity.survived
    assert report.sensitivity.planted


def test_models_and_replacements_are_judged_too() -> None:
    from equivcheck.attention import replace_attention_with_flash_attention

    report = quick(GPT, replace_attention_with_flash_attention, checks=["interface", "checkpoint"])
    assert (report.kind, report.verdict) == ("replacement", "equivalent")


# --- counterexamples -------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("unplanted")
@pytest.mark.parametrize(
    ("name", "check", "profile", "smallest"),
    [
        ("OffByOne", "output", "quick", {"batch_size": 1, "n_head": 1, "seq_len": 2}),
        ("Scaled", "output", "quick", {"batch_size": 1, "n_head": 2, "seq_len": 2}),  # with one head it is the head's
        ("DroppingInEval", "output", "quick", {"batch_size": 1, "n_head": 1}),
        ("Detaching", "gradients", "quick", {"batch_size": 1, "n_head": 1, "seq_len": 1}),
        ("WrongOffTheTile", "output", "quick", {"batch_size": 1, "n_head": 1, "seq_len": 1}),
        ("WrongFrom257", "output", "gate", {"batch_size": 1, "n_head": 1, "seq_len": 257}),
    ],
)
def test_a_wrong_attention_is_different_with_a_small_counterexample_that_replays(
    wrong: str, name: str, check: str, profile: str, smallest: dict[str, int]
) -> None:
    report = quick(candidate=f"{wrong}:{name}", checks=[check], profile=profile)
    assert report.verdict == "different"
    assert not report.equivalent
    counterexample = report.results[0].counterexample
    assert counterexample is not None
    case = Case.parse(counterexample.case)
    assert {field: getattr(case, field) for field in smallest} == smallest
    assert counterexample.replay.startswith(f"equivcheck replay {counterexample.case} {REFERENCE} ")
    assert counterexample.replay.endswith(f"--kind module --device cpu --check {check}")
    (again,) = replay(REFERENCE, f"{wrong}:{name}", counterexample.case, device="cpu", checks=[check])
    assert again.outcome == "different"
    assert again.detail == counterexample.message


@pytest.mark.usefixtures("unplanted")
def test_an_exception_is_the_counterexample_of_a_candidate_that_raises_where_the_original_runs() -> None:
    class Raising(CausalSelfAttention):
        def forward(self, x: Tensor) -> Tensor:
            if x.size(1) > 2:
                raise IndexError("more than two")
            return super().forward(x)

    (result,) = quick(candidate=Raising, checks=["output"]).results
    assert result.outcome == "different"
    assert result.counterexample is not None
    assert "IndexError: more than two" in result.counterexample.message
    assert Case.parse(result.counterexample.case).seq_len == 3


def test_a_replay_of_a_case_that_holds_says_so() -> None:
    results = replay(
        REFERENCE, CANDIDATE, Case(seq_len=3, block_size=3).id, device="cpu", checks=["output", "interface"]
    )
    nearest = "within budget; the largest ratio is that of output"
    assert [(r.outcome, r.detail, r.cases) for r in results] == [("equivalent", nearest, 1)] * 2


# --- what is refused -------------------------------------------------------------------------------------------------


class NotInHalf(FlashCausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        if x.dtype is torch.float16:
            raise NotImplementedError("no kernel for half")
        return super().forward(x)


def test_a_dtype_that_is_refused_as_a_whole_is_unsupported_and_the_rest_is_judged() -> None:
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

    with pytest.raises(
        UsageError, match="runs in none of float32, float64, bfloat16, float16 on cpu: NotImplementedError"
    ):
        quick(Nowhere)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"checks": ["outputs"]}, "unknown check 'outputs': allowed are output, gradients"),
        ({"exclude": ["outputs"]}, "unknown check 'outputs'"),
        ({"profile": "fast"}, "unknown profile 'fast': allowed are quick, gate, thorough"),
        ({"kind": "layer"}, "unknown kind 'layer'"),
        ({"device": "tpu"}, "unknown device 'tpu'"),
        ({"exclude": ["interface"]}, "no check is left"),
        ({"deviations": {"outputs": "why not"}}, "unknown deviation 'outputs'"),
        ({"deviations": {"output": "  "}}, "deviation 'output' has no reason"),
        ({"candidate": "no_such_package:X"}, "cannot import 'no_such_package'"),
    ],
)
def test_bad_input_is_told_in_one_line(options: dict[str, Any], named: str) -> None:
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


# --- deviations ------------------------------------------------------------------------------------------------------


def test_a_declared_deviation_is_told_with_its_reason_and_is_no_difference(wrong: str) -> None:
    report = quick(
        candidate=f"{wrong}:DroppingInEval",
        checks=["output", "checkpoint"],
        deviations={"output": "we like it so", "checkpoint": "not any more"},
    )
    output, checkpoint = report.results
    assert (output.outcome, output.detail) == ("deviation", "declared: we like it so")
    assert output.counterexample is not None
    assert checkpoint.outcome == "equivalent"
    assert "the declared deviation no longer shows: not any more" in checkpoint.notes
    assert report.verdict != "different"


# --- runs that do not finish -----------------------------------------------------------------------------------------


def test_a_run_that_is_out_of_time_is_partial_and_says_after_how_many_cases() -> None:
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
    def interrupted(pair: Any, case: Case) -> Any:
        raise KeyboardInterrupt

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


# --- sensitivity -----------------------------------------------------------------------------------------------------


def test_a_run_that_misses_a_planted_fault_is_insensitive_and_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    plants = planting.planted

    def one_switched_off(subject: Any, *rest: Any) -> Any:
        found = plants(subject, *rest)
        harmless = subject.with_candidate(subject.reference, found[0].name)
        return [replace(found[0], name="switched-off", subject=harmless), *found[1:]]

    monkeypatch.setattr(planting, "planted", one_switched_off)
    report = here(checks=["checkpoint"])
    assert report.verdict == "insensitive"
    assert not report.equivalent
    assert report.sensitivity.survived == ("switched-off",)
    with pytest.raises(Mismatch, match="insensitive: the planted faults switched-off were not seen"):
        assert_equivalent(
            CausalSelfAttention, FlashCausalSelfAttention, device="cpu", profile="quick", checks=["checkpoint"]
        )


def test_a_plant_that_does_nothing_survives(monkeypatch: pytest.MonkeyPatch) -> None:
    harmless = tuple(
        replace(fault, wrong=lambda m: m) if fault.name == "parameter-renamed" else fault for fault in planting.AROUND
    )
    monkeypatch.setattr(planting, "AROUND", harmless)
    assert here(checks=["checkpoint"]).sensitivity.survived == ("parameter-renamed",)


@pytest.mark.usefixtures("unplanted")
def test_a_run_in_which_nothing_was_planted_is_insensitive() -> None:
    assert here().verdict == "insensitive"


def test_the_whole_run_plants_at_least_fifteen_faults_in_every_profile_and_for_every_kind() -> None:
    from equivcheck.pairs.resolve import resolve

    function = torch.nn.functional.scaled_dot_product_attention

    def attend(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
        return function(q, k, v, is_causal=is_causal, dropout_p=dropout_p, scale=scale)

    for pair in ((CausalSelfAttention, FlashCausalSelfAttention), (GPT, GPT), (attend, attend)):
        subject = resolve(*pair, kind="auto", device="cpu")
        names = {check.name for check in CHECKS if subject.kind in check.kinds}
        for profile in module.PROFILES:
            found = [fault.name for fault in planting.planted(subject, names, profile, 0)]
            assert len(found) >= 15
            assert len(set(found)) == len(found)


# --- the assertion, and who listens ----------------------------------------------------------------------------------


def test_asserting_returns_the_report_of_an_equivalent_pair() -> None:
    report = assert_equivalent(REFERENCE, CANDIDATE, device="cpu", profile="quick", checks=["interface"])
    assert report.equivalent


@pytest.mark.usefixtures("unplanted")
def test_asserting_raises_what_differs_with_the_case_and_the_line_that_replays_it(wrong: str) -> None:
    with pytest.raises(Mismatch) as seen:
        assert_equivalent(REFERENCE, f"{wrong}:Detaching", device="cpu", profile="quick", checks=["gradients"])
    assert "wrong.py:Detaching is different\ngradients: " in str(seen.value)
    assert "equivcheck replay B1-" in str(seen.value)
    assert seen.value.ratio > 1


def test_asserting_raises_for_a_run_that_did_not_finish() -> None:
    with pytest.raises(Mismatch, match="partial: the run did not finish"):
        assert_equivalent(REFERENCE, CANDIDATE, device="cpu", checks=["interface"], max_seconds=0.0)


def test_a_listener_hears_every_stage_and_every_result() -> None:
    stages: list[tuple[str, int, int]] = []
    finished: list[str] = []

    class Ear:
        def progress(self, stage: str, done: int, total: int) -> None:
            stages.append((stage, done, total))

        def finished(self, result: Any) -> None:
            finished.append(result.name)

    report = quick(listener=Ear())
    planted = len(report.sensitivity.planted)
    assert finished == ["interface"]
    assert stages[:2] == [("interface", 0, 4), ("interface", 1, 4)]
    assert stages[-1] == ("sensitivity", planted, planted)


def test_the_module_can_be_called_as_the_function() -> None:
    assert module(REFERENCE, CANDIDATE, device="cpu", profile="quick", checks=["checkpoint"]).equivalent
