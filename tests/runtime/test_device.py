"""Devices are rows of one table: a new row is found, named, waited for and counted on wherever a device is used."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from equivcheck.bench.timer import clock_name
from equivcheck.cases.case import Case
from equivcheck.checks.long.long import lengthened
from equivcheck.errors import DeviceLost, UsageError
from equivcheck.report.provenance import environment
from equivcheck.runtime.device import (
    DEVICE_TYPES,
    Accelerator,
    allowed,
    device_name,
    ensure_device_alive,
    find_device,
    type_of,
)
from equivcheck.runtime.rng import generator_state, seeded

CPU, OTHER = torch.device("cpu"), torch.device("xpu", 1)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """A row for another accelerator, of which two are there; what was asked of torch's module of it."""
    asked: list[tuple[Any, ...]] = []
    module = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 2,
        current_device=lambda: 1,
        get_device_name=lambda device: "Some Accelerator",
        synchronize=lambda device: asked.append(("synchronize", device)),
        memory_allocated=lambda device: 7,
        mem_get_info=lambda device: (5, 9),
    )
    monkeypatch.setattr(torch, "xpu", module)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(DEVICE_TYPES, "xpu", Accelerator(name="xpu", title="XPU"))
    return asked


def test_a_row_is_all_that_it_takes_to_be_found_and_named(calls: list[tuple[Any, ...]]) -> None:
    assert find_device("xpu") == find_device("auto") == find_device("xpu:1") == OTHER
    assert device_name(OTHER) == "xpu:1 (Some Accelerator)"
    assert allowed("or") == "auto, cpu, cuda, cuda:N, xpu or xpu:N"
    with pytest.raises(UsageError, match="torch sees 2 XPU GPU"):
        find_device("xpu:2")
    with pytest.raises(UsageError, match="sees no CUDA GPU"):
        find_device("cuda")
    assert environment(OTHER)["gpu"] == "Some Accelerator"
    assert "gpu" not in environment(CPU)


def test_what_is_asked_of_a_device_goes_to_torchs_module_of_it(calls: list[tuple[Any, ...]]) -> None:
    row = type_of(OTHER)
    row.synchronize(OTHER)
    assert calls == [("synchronize", OTHER)]
    assert (row.allocated_bytes(OTHER), row.free_bytes(OTHER)) == (7, 5)
    assert (type_of(CPU).allocated_bytes(CPU), type_of(CPU).free_bytes(CPU)) == (0, None)


def test_an_accelerator_of_any_type_has_its_share_of_work_and_a_clock(calls: list[tuple[Any, ...]]) -> None:
    far = Case(seq_len=3, block_size=3)
    assert (
        lengthened(far, OTHER).seq_len == lengthened(far, torch.device("cuda")).seq_len > lengthened(far, CPU).seq_len
    )
    assert clock_name(OTHER, False) == "wall clock, synchronised"
    assert clock_name(torch.device("cuda"), False) == "CUDA events, launched before"
    assert clock_name(torch.device("cuda"), True) == "wall clock, synchronised"
    assert clock_name(CPU, True) == clock_name(CPU, False) == "wall clock"


def test_a_device_that_is_lost_is_named(calls: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch) -> None:
    def dead(*_: object, **__: object) -> None:
        raise RuntimeError("it is gone")

    monkeypatch.setattr(torch, "zeros", dead)
    with pytest.raises(DeviceLost, match=r"^xpu:1 is lost .* and `equivcheck replay` on this case tells"):
        ensure_device_alive(OTHER, "it ran")


def test_the_generator_of_a_cpu_is_torchs_own() -> None:
    with seeded(3, CPU):
        state, first = generator_state(CPU), torch.rand(2)
    with seeded(3, CPU):
        assert torch.equal(generator_state(CPU), state)
        assert torch.equal(torch.rand(2), first)
