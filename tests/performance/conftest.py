"""What a record of pytest-benchmark says of the machine: the GPU, torch and its threads beside the CPU."""

from dataclasses import asdict
from typing import Any

import pytest
import torch

from equivcheck.bench.gpu_state import clocks
from equivcheck.report.provenance import environment
from equivcheck.runtime.device import device_name


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    device = torch.device("cuda", 0) if config.getoption("--gpu") else torch.device("cpu")
    machine_info["equivcheck"] = {"device": device_name(device), **environment(device)}
    gpu = clocks(device)
    machine_info["gpu_clocks"] = None if gpu is None else asdict(gpu)
