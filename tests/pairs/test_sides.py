"""Whose exception it is: the candidate's, the original's or equivcheck's own."""

import contextlib
import importlib
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from searches import BY_NAME, CASE, different, searched, smallest
from torch import Tensor

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cli.main import main
from equivcheck.engine.search import Search
from equivcheck.errors import ReferenceRaises, ToolError
from equivcheck.pairs import sides
from equivcheck.pairs.resolve import resolve
from equivcheck.pairs.sides import CANDIDATE, REFERENCE, failure, foreign, raised_by, running


class EvenHeads(CausalSelfAttention):
    """An original that refuses odd heads where it is called."""

    error: type[Exception] = ValueError

    def forward(self, x: Tensor) -> Tensor:
        if x.size(-1) // self.n_head % 2:
            raise self.error("even heads only")
        return super().forward(x)


class EvenHeadsByAssertion(EvenHeads):
    error = AssertionError


class EvenHeadsWhenBuilt(CausalSelfAttention):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        assert config.n_embd // config.n_head % 2 == 0, "even heads only"


class EvenHeadsHere(FlashCausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        if x.size(-1) // self.n_head % 2:
            raise AssertionError
        return super().forward(x)


class NowAndThen(CausalSelfAttention):
    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        NowAndThen.calls += 1
        if NowAndThen.calls % 17 == 16:
            raise RuntimeError("now and then")
        return super().forward(x)


@pytest.mark.parametrize("reference", [EvenHeads, EvenHeadsByAssertion, EvenHeadsWhenBuilt, NowAndThen])
def test_what_the_original_refuses_is_asked_of_nobody(reference: Any) -> None:
    (search,) = searched(reference, FlashCausalSelfAttention, cases=24)
    assert not search.failed
    assert any(held.judged for held in search.passed.values())
    assert any("where the original itself raises" in note for held in search.passed.values() for note in held.notes)


@pytest.mark.parametrize("reference", [EvenHeads, EvenHeadsByAssertion, EvenHeadsWhenBuilt])
def test_what_both_refuse_is_no_difference(reference: Any) -> None:
    assert not different(reference, EvenHeadsHere)


def test_what_the_candidate_alone_refuses_is_a_difference() -> None:
    _, message = smallest(CausalSelfAttention, EvenHeadsHere)
    assert message == "the candidate raises AssertionError: no message; the original runs"


class RaisesUnderNoGrad(FlashCausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            raise RuntimeError("not without gradients")
        return super().forward(x)


class OriginalRaisesInInferenceMode(CausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        if torch.is_inference_mode_enabled():
            raise RuntimeError("not in inference mode")
        return super().forward(x)


def test_the_original_is_run_in_the_very_way_before_it_is_said_to_run() -> None:
    assert different(CausalSelfAttention, RaisesUnderNoGrad)
    (search,) = searched(OriginalRaisesInInferenceMode, OriginalRaisesInInferenceMode)
    assert not search.failed


@pytest.mark.parametrize(
    "check", ["output", "gradients", "purity", "layouts", "batching", "modes", "dropout", "extremes"]
)
def test_what_equivcheck_raises_is_its_own_error_and_no_difference(check: str, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="module", device="cpu")
    module = importlib.import_module(BY_NAME[check].run.__module__)
    name = next(name for name in ("compare_all", "candidate_run") if hasattr(module, name))
    monkeypatch.setattr(module, name, None)  # what is called there is a mistake of equivcheck's
    search = Search(BY_NAME[check], subject, 1, 0.0, math.inf, lambda _: None)
    with pytest.raises(ToolError, match=f"TypeError: .*equivcheck/.*, in {check} on B2-T9"):
        search.visit(CASE)
    assert not search.failed


def test_an_error_of_equivcheck_ends_in_one_line_that_asks_for_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "breaks.py").write_text(
        "import importlib\ndef it():\n    importlib.import_module('equivcheck.checks.base.side_effects')._states = None\n"
    )
    pair = ["--setup", f"{tmp_path}/breaks.py:it"]
    pair += ["equivcheck.attention:CausalSelfAttention", "equivcheck.attention:FlashCausalSelfAttention"]
    assert main(["verify", *pair, "--check", "purity", "--profile", "quick", "--device", "cpu", "--jobs", "1"]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "internal error" in line]
    assert "please report this line" in line
    assert "in purity on B1-" in line


def test_an_exception_belongs_to_the_side_that_runs_where_it_is_raised() -> None:
    def raising() -> None:
        raise OSError("somewhere")

    for side in (REFERENCE, CANDIDATE):
        with pytest.raises(OSError, match="somewhere") as caught, running(side), foreign():
            raising()
        assert raised_by(caught.value) == side
    assert isinstance(failure(raising), OSError)
    assert failure(lambda: None) is None


def test_a_call_into_torch_by_the_pair_is_the_pairs_own() -> None:
    with pytest.raises(RuntimeError) as caught, foreign(CANDIDATE):
        torch.matmul(torch.ones(2, 3), torch.ones(2, 3))
    assert raised_by(caught.value) == CANDIDATE
    with pytest.raises(ReferenceRaises), contextlib.ExitStack():
        raise ReferenceRaises("RuntimeError: why")


def test_what_is_judged_like_anybodys_code_is_there() -> None:
    assert [place for place in sides._JUDGED if not Path(place).exists()] == []
