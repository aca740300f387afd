"""Settings of the process that change what torch computes: read, and put back after code that may have switched them.

A candidate that switches one must not be judged by it: where it allows TF32, the budget would allow TF32 as well.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch.utils import deterministic

__all__ = ["kept", "now", "switched"]


class _Setting(NamedTuple):
    get: Callable[[], Any]
    put: Callable[[Any], object]


def _of(owner: Any, name: str) -> _Setting:
    return _Setting(lambda: getattr(owner, name), lambda value: setattr(owner, name, value))


def _autocast(device: str) -> _Setting:
    return _Setting(lambda: torch.is_autocast_enabled(device), lambda value: torch.set_autocast_enabled(device, value))


_SETTINGS: dict[str, _Setting] = {
    "default dtype": _Setting(torch.get_default_dtype, torch.set_default_dtype),
    "default device": _Setting(
        torch.get_default_device, lambda value: torch.set_default_device(None if value.type == "cpu" else value)
    ),
    "grad mode": _Setting(torch.is_grad_enabled, torch.set_grad_enabled),
    "deterministic algorithms": _Setting(
        lambda: (torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()),
        lambda value: torch.use_deterministic_algorithms(value[0], warn_only=value[1]),
    ),
    "filling of memory that is not initialised": _of(deterministic, "fill_uninitialized_memory"),
    "float32 matmul precision": _Setting(torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "reduced precision of float16": _of(torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction"),
    "reduced precision of bfloat16": _of(torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction"),
    "cudnn.benchmark": _of(torch.backends.cudnn, "benchmark"),
    "cudnn.deterministic": _of(torch.backends.cudnn, "deterministic"),
    "flash sdp": _Setting(torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),
    "memory-efficient sdp": _Setting(
        torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp
    ),
    "math sdp": _Setting(torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp),
    "cudnn sdp": _Setting(torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp),
    "threads": _Setting(torch.get_num_threads, torch.set_num_threads),
    "autocast on the CPU": _autocast("cpu"),
    "autocast on CUDA": _autocast("cuda"),
    "anomaly mode": _Setting(torch.is_anomaly_enabled, torch.set_anomaly_enabled),
}


def now() -> Mapping[str, Any]:
    """Every setting as it is, by its name."""
    return {name: setting.get() for name, setting in _SETTINGS.items()}


def switched(before: Mapping[str, Any]) -> list[str]:
    """The names of the settings that are not what they were."""
    return [name for name, value in now().items() if value != before[name]]


@contextmanager
def kept() -> Iterator[None]:
    """Afterwards every setting is what it was."""
    before = now()
    try:
        yield
    finally:
        for name in switched(before):
            _SETTINGS[name].put(before[name])
