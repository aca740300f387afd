"""A run: what it reports, how small its counterexamples are, and what the assertion raises."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from quick_runs import CANDIDATE, REFERENCE, WRONG, assert_equivalent, quick, replay
from torch import Tensor

from equivcheck.attention import CausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS
from equivcheck.engine import planting
from equivcheck.errors import Mismatch
from equivcheck.gpt import GPT
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.report.model import Report


@pytest.fixture
def wrong(tmp_path: Path) -> str:
    file = tmp_path / "wrong.py"
    file.write_text(WRONG)
    return str(file)


@pytest.fixture
def unplanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the search alone: faults cost time, and their absence makes no difference to a difference."""
    monkeypatch.setattr(planting, "planted", lambda *_: [])


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
    assert {name: len(digest) for name, digest in report.sources.items()} == {
        "equivcheck": 64,
        "reference": 64,
        "candidate": 64,
    }
    output = report.results[0]
    assert 0 < output.worst_ratio <= 1  # type: ignore[operator]
    assert output.worst_case is not None
    assert Case.parse(output.worst_case).id == output.worst_case


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
def test_a_wrong_attention_has_a_small_counterexample_that_replays(
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
    # a replay is about one case: it does not say where else cases fail
    assert all(line.strip() in counterexample.message for line in again.detail.splitlines())


@pytest.mark.usefixtures("unplanted")
def test_an_exception_of_the_candidate_alone_is_the_counterexample() -> None:
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
    assert [(r.name, r.outcome, r.cases) for r in results] == [
        ("output", "equivalent", 1),
        ("interface", "equivalent", 1),
    ]
    first_lines = [r.detail.partition("\n")[0] for r in results]
    assert first_lines == [f"within budget; the largest ratio is that of {r.worst_where}" for r in results]


def test_a_replay_says_what_the_ratio_of_a_case_that_holds_is_made_of() -> None:
    (result,) = replay(REFERENCE, CANDIDATE, Case(seq_len=3, block_size=3).id, device="cpu", checks=["output"])
    lines = [line.strip() for line in result.detail.splitlines()[1:]]
    of = ("error at (", "norm of the error in row (", "norm of the whole error: ", "at (", "the original itself is at ")
    assert [line.startswith(start) for line, start in zip(lines, of, strict=True)] == [True] * 5
    ratios = [float(line.rpartition("ratio ")[2]) for line in lines[:3]]
    assert result.worst_ratio is not None
    assert max(ratios) == pytest.approx(result.worst_ratio, rel=0.06)


# --- deviations ------------------------------------------------------------------------------------------------------


def test_a_declared_deviation_has_its_reason_and_is_no_difference(wrong: str) -> None:
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


# --- the assertion, and who listens ----------------------------------------------------------------------------------


def test_asserting_returns_the_report_of_an_equivalent_pair() -> None:
    report = assert_equivalent(REFERENCE, CANDIDATE, device="cpu", profile="quick", checks=["interface"])
    assert report.equivalent


@pytest.mark.usefixtures("unplanted")
def test_asserting_raises_what_differs_with_its_case_and_replay(wrong: str) -> None:
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


def test_importing_the_module_leaves_the_function_of_the_package() -> None:
    import equivcheck.api

    assert equivcheck.verify is equivcheck.api.verify
