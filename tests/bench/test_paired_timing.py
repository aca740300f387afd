"""Timing two side by side: pairs are fair, and intervals cover what moves between rounds."""

import math
import time
from typing import Any

import pytest
import torch

from equivcheck.bench.paired_timing import Action, Pairing, Quartiles, alone, paired

CPU = torch.device("cpu")


def busy(ms: float) -> Action:
    def action(number: int) -> None:
        until = time.perf_counter() + ms / 1e3
        while time.perf_counter() < until:
            pass

    return action


def test_the_ratio_is_the_first_over_the_second_within_its_interval() -> None:
    found = paired(lambda: busy(2.0), lambda: busy(1.0), CPU, max_seconds=0.6)
    assert found.low <= found.ratio <= found.high
    assert found.ratio == pytest.approx(2.0, rel=0.3)
    assert found.first.lower_ms <= found.first.median_ms <= found.first.upper_ms
    assert found.first.count == found.second.count


def test_repetitions_alternate_and_are_numbered_so_that_buffers_can_change() -> None:
    seen: list[tuple[str, int]] = []

    def make(name: str) -> Any:
        return lambda: lambda number: seen.append((name, number))

    paired(make("A"), make("B"), CPU, max_seconds=0.05, rounds=1)
    assert {number for _, number in seen} >= {0, 1, 2}
    pairs = ["".join(name for name, _ in seen[at : at + 2]) for at in range(0, len(seen), 2)]
    assert set(pairs) == {"AB", "BA"}  # what comes second finds another machine


def test_there_is_no_result_before_the_first_round() -> None:
    pairing = Pairing(lambda: busy(0.1), lambda: busy(0.1), CPU)
    assert pairing.result is None
    pairing.round(0.02)
    assert pairing.result is not None


def test_each_round_builds_both_anew() -> None:
    built = {"A": 0, "B": 0}

    def make(name: str) -> Action:
        built[name] += 1
        return lambda number: None

    paired(lambda: make("A"), lambda: make("B"), CPU, max_seconds=0.05, rounds=3)
    assert built == {"A": 3, "B": 3}


def test_measuring_ends_when_its_time_is_over() -> None:
    began = time.monotonic()
    found = paired(lambda: busy(5.0), lambda: busy(5.0), CPU, max_seconds=0.2, standard_error=0.0)
    assert time.monotonic() - began < 5
    assert not found.settled


def test_quartiles_are_those_of_the_times() -> None:
    assert Quartiles.of([1.0, 2.0, 3.0, 4.0, 5.0]) == Quartiles(3.0, 2.0, 4.0, 5)
    assert alone(lambda: lambda number: None, CPU, max_seconds=0.05).count >= 5


def test_intervals_cover_what_moves_between_rounds() -> None:
    speeds = iter([1.0, 2.0, 3.0, 4.0])

    def make() -> Action:
        return busy(next(speeds))

    found = paired(make, lambda: busy(1.0), CPU, max_seconds=1.0)
    assert math.log(found.high / found.low) > 0.5
