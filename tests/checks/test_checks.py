"""Each check passes what is right, and sees the faults that break its property."""

from typing import Any

import pytest
from check_cases import BY_NAME, FAULT, PLAIN, SEEN, SHIPPED, case_of, pair
from torch import Tensor

from equivcheck.attention import CausalSelfAttention
from equivcheck.cases.strategies import cases
from equivcheck.cases.words import REGIMES
from equivcheck.checks import CHECKS
from equivcheck.errors import Mismatch
from equivcheck.faults import FAULTS, PLANTS, RIGHT
from equivcheck.faults.correct.recomputed import CheckpointedReentrantly
from equivcheck.report.catalogue import CATALOGUE


@pytest.mark.parametrize("check", SHIPPED)
def test_the_shipped_pair_passes(check: str) -> None:
    held = BY_NAME[check].run(pair(), case_of(check))
    assert held.judged
    assert (held.ratio is None) == (check in ("checkpoint", "errors", "generation"))  # which compare no numbers
    assert 0 < (0.5 if held.ratio is None else held.ratio) <= 1


@pytest.mark.parametrize("check", SHIPPED)
def test_the_original_passes_beside_itself(check: str) -> None:
    BY_NAME[check].run(pair(CausalSelfAttention), case_of(check))


@pytest.mark.parametrize(("check", "fault"), [(check, fault) for check, faults in SEEN.items() for fault in faults])
def test_a_fault_is_seen_by_the_check_whose_property_it_breaks(check: str, fault: str) -> None:
    with pytest.raises(Mismatch):
        BY_NAME[check].run(pair(FAULT[fault].attention), case_of(check))


@pytest.mark.parametrize("right", RIGHT, ids=lambda right: right.name)
def test_a_right_attention_in_other_words_passes(right: Any) -> None:
    subject = pair(right.attention)
    for check in ("output", "gradients", "causality"):
        for case in (
            PLAIN,
            PLAIN.but(dtype="bfloat16", layout="transposed"),
            PLAIN.but(regime="ties", dtype="float16"),
        ):
            BY_NAME[check].run(subject, case)


@pytest.mark.parametrize("check", SHIPPED)
def test_what_refuses_autograd_grad_and_takes_backward_passes(check: str) -> None:
    BY_NAME[check].run(pair(CheckpointedReentrantly), case_of(check))


@pytest.mark.parametrize("regime", REGIMES)
def test_the_shipped_pair_passes_in_every_regime(regime: str) -> None:
    for dtype in ("float32", "float16"):
        for check in ("output", "gradients"):
            BY_NAME[check].run(pair(), PLAIN.but(regime=regime, dtype=dtype))


def test_every_fault_and_plant_names_checks_that_there_are() -> None:
    properties = set(BY_NAME)
    for planted in (*FAULTS, *PLANTS):
        assert planted.seen_by, planted.name
        assert set(planted.seen_by) <= properties, planted.name


def test_every_check_has_a_promise_and_cases_for_each_profile() -> None:
    for check in CHECKS:
        assert check.promise.strip(), check.name
        assert 0 < check.cases["quick"] <= check.cases["gate"] <= check.cases["thorough"]
        assert check.kinds
        cases(check.space)


class Raising(CausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        raise ZeroDivisionError("planted\non two lines")


class RefusingToBeBuilt(CausalSelfAttention):
    def __init__(self, config: Any) -> None:
        raise NotImplementedError("not on this machine")


# a checkpoint is loaded and never run, and what is refused for one reason is refused
@pytest.mark.parametrize("check", [name for name in SHIPPED if name not in ("checkpoint", "errors")])
def test_a_candidate_that_raises_is_a_mismatch_that_names_the_exception(check: str) -> None:
    with pytest.raises(Mismatch, match="ZeroDivisionError: planted on two lines"):
        BY_NAME[check].run(pair(Raising), case_of(check))


@pytest.mark.parametrize("check", ["output", "checkpoint", "interface", "purity", "modes"])
def test_a_candidate_that_cannot_be_built_is_a_mismatch(check: str) -> None:
    with pytest.raises(Mismatch, match="NotImplementedError: not on this machine") as seen:
        BY_NAME[check].run(pair(RefusingToBeBuilt), case_of(check))
    assert seen.value.where == "NotImplementedError"


def test_the_catalogue_names_the_checks_with_their_kinds_counts_and_dtypes() -> None:
    for check, entry in zip(CHECKS, CATALOGUE, strict=True):
        assert (check.name, check.kinds, check.cases, check.judges) == (
            entry.name,
            entry.kinds,
            entry.cases,
            entry.judges,
        )
        assert tuple(check.space.dtypes) == entry.dtypes
        assert check.run.__module__ == f"equivcheck.checks.{entry.module}"
