"""Measuring: pairs are fair, memory is counted from zero, what does not fit is a result, and kernels are read off what ran."""

import math
import time
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from equivcheck.bench.gpu_state import clocks
from equivcheck.bench.memory import peak_of
from equivcheck.bench.paired_timing import Action, DoesNotFit, Pairing, Quartiles, alone, fitting, paired
from equivcheck.runtime.kernel_trace import kernels_of

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


def test_running_out_of_memory_is_a_result_and_any_other_error_is_not() -> None:
    with pytest.raises(DoesNotFit, match="no room"), fitting(CPU):
        raise torch.OutOfMemoryError("no room")
    with pytest.raises(DoesNotFit), fitting(CPU):
        torch.empty(2**50)
    with pytest.raises(RuntimeError, match="something else"), fitting(CPU):
        raise RuntimeError("something else")


def test_peak_memory_is_what_is_there_at_the_same_time_and_not_what_was_there_before() -> None:
    size = 2**18

    def make(keep: bool) -> Any:
        resident = torch.zeros(size, dtype=torch.uint8)  # from before: not counted

        def action(number: int) -> None:
            held = []
            for _ in range(4):
                x = resident + 1
                if keep:
                    held.append(x)
                del x

        return action

    assert peak_of(lambda: make(False), CPU).above_bytes == size
    assert peak_of(lambda: make(True), CPU).above_bytes == 4 * size
    assert peak_of(lambda: make(True), CPU).peak_bytes is None


def test_the_clocks_of_a_cpu_are_absent() -> None:
    assert clocks(CPU) is None


def test_kernels_are_read_off_what_ran() -> None:
    q = torch.randn(1, 2, 16, 8)

    def spelled_out() -> Any:
        return torch.softmax(q @ q.mT, -1) @ q

    def fused() -> Any:
        return F.scaled_dot_product_attention(q, q, q, is_causal=True)

    def dropping() -> Any:
        return F.scaled_dot_product_attention(q, q, q, dropout_p=0.5, is_causal=True)

    assert kernels_of(spelled_out) == ("spelled out",)
    assert kernels_of(fused) == ("flash",)
    assert kernels_of(dropping) == ("math",)
    assert kernels_of(lambda: (fused(), spelled_out())) == ("flash", "spelled out")
    assert kernels_of(lambda: q + 1) == ("none known",)


def test_kernels_are_read_off_backward_passes_too_without_being_named_twice() -> None:
    q = torch.randn(1, 2, 16, 8, requires_grad=True)
    found = kernels_of(lambda: F.scaled_dot_product_attention(q, q, q, is_causal=True).sum().backward())
    assert found == ("flash",)


def test_intervals_cover_what_moves_between_rounds() -> None:
    speeds = iter([1.0, 2.0, 3.0, 4.0])

    def make() -> Action:
        return busy(next(speeds))

    found = paired(make, lambda: busy(1.0), CPU, max_seconds=1.0)
    assert math.log(found.high / found.low) > 0.5
