"""The classes of the case space: whatever is drawn beside them, some cases are sure to show what is wrong."""

from typing import Any

import pytest

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS
from equivcheck.engine.planting import planted
from equivcheck.engine.search import Search
from equivcheck.engine.sensitivity import first_detection
from equivcheck.engine.strata import classes
from equivcheck.gpt import GPT
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.resolve import resolve

PAIRS: dict[str, tuple[Any, Any]] = {"module": (CausalSelfAttention, FlashCausalSelfAttention), "model": (GPT, GPT)}


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("name", ["training", "generation"])
def test_each_whole_model_check_has_a_case_that_shows_its_plants(kind: str, name: str) -> None:
    check = next(check for check in CHECKS if check.name == name)
    subject = resolve(*PAIRS[kind], kind=kind, device="cpu")
    drawn: dict[int, list[Case]] = {}
    for seed in (0, 1):
        search = Search(check, subject, check.cases["quick"], 0.0, float("inf"), lambda _: None)
        space = classes(check, subject, DTYPES, search.planned)
        search.run(space, seed, only=len(space) - 1)
        assert not search.failed
        drawn[seed] = list(search.passed)
    assert drawn[0] == drawn[1], "what is sure does not depend on the seed"
    faults = [fault for fault in planted(subject, {name}, "quick", 0) if fault.seen_by == (name,)]
    assert faults
    for fault in faults:
        assert first_detection(fault, [(check, case) for case in drawn[0]], float("inf")), fault.name
