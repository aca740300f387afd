"""What a run says when it would not have noticed."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from quick_runs import assert_equivalent, here
from torch import Tensor

from equivcheck import api as module
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.checks import CHECKS
from equivcheck.engine import planting
from equivcheck.errors import Mismatch
from equivcheck.gpt import GPT


@pytest.fixture
def unplanted(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of the search alone: faults cost time, and their absence makes no difference to a difference."""
    monkeypatch.setattr(planting, "planted", lambda *_: [])


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


def test_fifteen_faults_are_planted_in_every_profile_and_kind() -> None:
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
