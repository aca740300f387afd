"""Memory is counted from zero, and what does not fit is a result."""

from typing import Any

import pytest
import torch

from equivcheck.bench.gpu_state import clocks
from equivcheck.bench.memory import peak_of
from equivcheck.bench.paired_timing import DoesNotFit, fitting

CPU = torch.device("cpu")


def test_running_out_of_memory_is_a_result_and_any_other_error_is_not() -> None:
    with pytest.raises(DoesNotFit, match="no room"), fitting(CPU):
        raise torch.OutOfMemoryError("no room")
    with pytest.raises(DoesNotFit), fitting(CPU):
        torch.empty(2**50)
    with pytest.raises(RuntimeError, match="something else"), fitting(CPU):
        raise RuntimeError("something else")


def test_peak_memory_is_what_is_added_at_the_same_time() -> None:
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
