"""The clock of a process: each second counts once, for the innermost part, and without a clock nothing is read."""

import math
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS
from equivcheck.engine.drawing import draw_cases
from equivcheck.engine.search import Search
from equivcheck.pairs.cache import Memory
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve
from equivcheck.runtime import clock
from equivcheck.runtime.clock import (
    CANDIDATE,
    COMPARING,
    DRAWING,
    ORACLE,
    OTHER,
    PARTS,
    PERTURBED,
    PLANTED,
    REFERENCE,
    REST,
    SENSITIVITY,
    Clock,
)
from equivcheck.runtime.device import DEVICE_TYPES, Accelerator

CASE = Case(batch_size=2, seq_len=9, n_head=2, head_size=4, block_size=12, seed=5)
OUTPUT = next(check for check in CHECKS if check.name == "output")


class Hours:
    """A time that goes on when it is said so, in whole hours."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def pass_by(self, hours: float) -> None:
        self.now += hours


class Slow(CausalSelfAttention):
    """The original, whose forward pass takes an hour in the case's dtype and 100 hours in float64."""

    time = Hours()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.time.pass_by(100.0 if x.dtype == torch.float64 else 1.0)
        return super().forward(x)


class SlowFlash(FlashCausalSelfAttention):
    """The fused one, whose forward pass takes 10,000 hours."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        Slow.time.pass_by(10_000.0)
        return super().forward(x)


@pytest.fixture
def hours() -> Iterator[Hours]:
    """A time for the clock of this process, which is taken away afterwards."""
    hours = Slow.time = Hours()
    clock.start(Clock(hours))
    yield hours
    clock.stop()


def slow_pair() -> Pair:
    return replace(resolve(Slow, SlowFlash, kind="module", device="cpu"), memory=Memory())


def test_the_innermost_part_alone_has_the_time(hours: Hours) -> None:
    with clock.in_part(REST):
        hours.pass_by(1)
        with clock.in_part(COMPARING):
            hours.pass_by(2)
            with clock.in_part(PERTURBED):
                hours.pass_by(4)
            hours.pass_by(8)
        hours.pass_by(16)
    hours.pass_by(32)  # a worker that waits for a question does nothing
    assert clock.drained() == {OTHER: {REST: 17, COMPARING: 10, PERTURBED: 4}}
    assert clock.drained() == {}


def test_an_exception_leaves_its_part(hours: Hours) -> None:
    def fails() -> None:
        with clock.in_part(ORACLE):
            hours.pass_by(1)
            raise KeyError

    with clock.in_part(REST):
        with pytest.raises(KeyError):
            fails()
        hours.pass_by(2)
    assert clock.drained() == {OTHER: {ORACLE: 1, REST: 2}}


@pytest.mark.parametrize(
    ("outside", "inside", "counted"),
    [
        (ORACLE, REFERENCE, ORACLE),
        (PERTURBED, REFERENCE, PERTURBED),
        (PERTURBED, ORACLE, PERTURBED),
        (ORACLE, PERTURBED, PERTURBED),
        (COMPARING, REFERENCE, REFERENCE),
        (DRAWING, CANDIDATE, CANDIDATE),
    ],
)
def test_an_oracle_that_runs_the_original_is_the_oracle(hours: Hours, outside: str, inside: str, counted: str) -> None:
    with clock.in_part(outside), clock.in_part(inside):
        hours.pass_by(1)
    assert {part for part, seconds in (clock.drained() or {})[OTHER].items() if seconds} == {counted}


def test_a_stage_has_the_time_inside_of_it(hours: Hours) -> None:
    with clock.in_part(REST):
        hours.pass_by(1)
        with clock.in_stage("output"):
            hours.pass_by(2)
        with clock.in_stage(SENSITIVITY), clock.in_part(CANDIDATE):
            hours.pass_by(4)  # there the candidate has a fault
        hours.pass_by(8)
    spent = clock.drained()
    assert spent == {OTHER: {REST: 9}, "output": {REST: 2}, SENSITIVITY: {REST: 0, PLANTED: 4}}


def test_without_a_clock_no_context_is_made_and_no_time_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Clock, "_count", lambda self: pytest.fail("a clock ran"))
    assert len({id(clock.in_part(part)) for part in PARTS}) == 1
    OUTPUT.run(resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="module", device="cpu"), CASE)
    assert clock.drained() is None


def test_a_check_divides_its_time_between_sides_and_oracle(hours: Hours) -> None:
    pair = slow_pair()
    clock.drained()
    with clock.in_part(REST), clock.in_stage("output"):
        OUTPUT.run(pair, CASE)
    spent = (clock.drained() or {})["output"]
    assert 0 < spent[REFERENCE] < 100
    for part, of_one_pass in ((CANDIDATE, 10_000), (ORACLE, 100), (PERTURBED, 100)):
        assert spent[part] > 0
        assert spent[part] % of_one_pass == 0, part
    assert [spent.get(part, 0.0) for part in (REST, COMPARING, DRAWING)] == [0, 0, 0]


def test_a_search_counts_drawing_and_its_cases_apart(hours: Hours, monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(strategy: Any, count: int, seed: int, property_of: Any) -> None:
        hours.pass_by(1)
        draw_cases(strategy, count, seed, property_of)

    monkeypatch.setattr("equivcheck.engine.search.draw_cases", drawn)
    from hypothesis import strategies as st

    check = replace(OUTPUT, run=lambda pair, case: (hours.pass_by(2), OUTPUT.run(pair, case))[1])
    pair = resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="module", device="cpu")
    clock.drained()
    Search(check, pair, 1, 0, math.inf).run([(st.just(CASE), 1)], 0)
    assert (clock.drained() or {})[OTHER].items() >= {DRAWING: 1, REST: 2}.items()


def test_a_faulty_candidate_is_a_planted_fault(hours: Hours) -> None:
    pair = slow_pair()
    clock.drained()
    with clock.in_stage(SENSITIVITY):
        OUTPUT.run(pair, CASE)
    spent = (clock.drained() or {})[SENSITIVITY]
    assert CANDIDATE not in spent
    assert spent[PLANTED] >= 10_000


def test_the_clock_waits_for_an_accelerator_at_each_border(hours: Hours, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[Any] = []

    def synchronize(device: torch.device) -> None:
        waits.append(device)
        hours.pass_by(1)
        if len(waits) == 3:
            raise RuntimeError("an illegal memory access was encountered")

    row = Accelerator(name="xpu", title="Some")
    monkeypatch.setattr(torch, "xpu", SimpleNamespace(synchronize=synchronize))
    monkeypatch.setitem(DEVICE_TYPES, "xpu", row)
    clock.wait_for(torch.device("cpu"))
    with clock.in_part(REST):
        assert not waits
    clock.drained()
    clock.wait_for(torch.device("xpu", 1))
    with clock.in_part(REST), clock.in_part(CANDIDATE):
        hours.pass_by(8)  # launched, and not yet done
    assert len(waits) == 4  # a device that is lost is no error of the clock
    assert clock.drained() == {OTHER: {REST: 2, CANDIDATE: 9}}


def test_a_run_in_this_process_gives_its_clock_back(hours: Hours) -> None:
    def fails() -> None:
        with clock.kept(True):
            assert set((clock.drained() or {})[OTHER]) == {REST}
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    with clock.kept(False):
        assert clock.drained() is None
        clock.wait_for(torch.device("cpu"))
    assert clock.drained() == {}
