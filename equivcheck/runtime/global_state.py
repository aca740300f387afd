"""Settings of the process that change torch's results: read before foreign code runs, and restored after it.

The judgement of a candidate must not depend on a setting that it switches: if it allowed TF32, the budget would as
well.
"""

import types
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils import deterministic

from equivcheck.runtime.device import DEVICE_TYPES

__all__ = ["default_dtype", "now", "preserved", "put_back", "switched"]

_SUBNORMAL, _ONE = 2.0**-1060, 1.0  # named, so that Python computes their product at run time
_PLACES = (F, nn.Module, nn.Linear, nn.Dropout, torch.Tensor)
"""Namespaces whose functions a candidate might monkeypatch for the whole process."""


class _Setting(NamedTuple):
    get: Callable[[], Any]
    put: Callable[[Any], object]


def _of(owner: Any, name: str) -> _Setting:
    return _Setting(lambda: getattr(owner, name), lambda value: setattr(owner, name, value))


def _autocast(device: str) -> _Setting:
    return _Setting(lambda: torch.is_autocast_enabled(device), lambda value: torch.set_autocast_enabled(device, value))


def _flushes() -> bool:
    """Whether this thread flushes subnormal numbers to zero: torch cannot say, and Python's floats do the same."""
    return _SUBNORMAL * _ONE == 0.0


def _cudnn_tf32() -> bool | None:
    try:
        return bool(torch.backends.cudnn.allow_tf32)
    except RuntimeError:  # torch refuses to read it once a newer setting was made
        return None


def _put_cudnn_tf32(value: bool | None) -> None:
    if value is not None:
        torch.backends.cudnn.allow_tf32 = value


class _Functions:
    """The contents of the namespaces of `_PLACES`; equal if their functions are the same."""

    def __init__(self) -> None:
        self.namespaces = [vars(place).copy() for place in _PLACES]

    def __eq__(self, other: object) -> bool:
        # whole dictionaries are compared first: this comparison runs twice for every call of foreign code
        return isinstance(other, _Functions) and (
            self.namespaces == other.namespaces or self.functions() == other.functions()
        )

    __hash__ = None  # type: ignore[assignment]  # it compares mutable state

    def functions(self) -> dict[tuple[int, str], Any]:
        return {
            (at, name): value
            for at, namespace in enumerate(self.namespaces)
            for name, value in namespace.items()
            if isinstance(value, types.FunctionType | types.BuiltinFunctionType)
        }


def _put_functions(before: _Functions) -> None:
    now = _Functions().functions()
    for (at, name), value in before.functions().items():
        if now.get((at, name)) is not value:
            setattr(_PLACES[at], name, value)


_HOOKS = tuple(
    name for name, value in vars(nn.modules.module).items() if name.startswith("_global_") and isinstance(value, dict)
)


def _global_hooks() -> dict[str, dict[Any, Any]]:
    return {name: dict(getattr(nn.modules.module, name)) for name in _HOOKS}


def _put_global_hooks(before: Mapping[str, Mapping[Any, Any]]) -> None:
    for name, hooks in before.items():
        registry = getattr(nn.modules.module, name)
        registry.clear()
        registry.update(hooks)


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
    "cudnn.enabled": _of(torch.backends.cudnn, "enabled"),
    "mkldnn": _Setting(torch._C._get_mkldnn_enabled, torch._C._set_mkldnn_enabled),
    "TF32 in cuDNN": _Setting(_cudnn_tf32, _put_cudnn_tf32),
    "cudnn.benchmark": _of(torch.backends.cudnn, "benchmark"),
    "cudnn.deterministic": _of(torch.backends.cudnn, "deterministic"),
    # torch has these four in its module for CUDA, and they choose the kernels of a CPU as well
    "flash sdp": _Setting(torch.backends.cuda.flash_sdp_enabled, torch.backends.cuda.enable_flash_sdp),
    "memory-efficient sdp": _Setting(
        torch.backends.cuda.mem_efficient_sdp_enabled, torch.backends.cuda.enable_mem_efficient_sdp
    ),
    "math sdp": _Setting(torch.backends.cuda.math_sdp_enabled, torch.backends.cuda.enable_math_sdp),
    "cudnn sdp": _Setting(torch.backends.cuda.cudnn_sdp_enabled, torch.backends.cuda.enable_cudnn_sdp),
    "threads": _Setting(torch.get_num_threads, torch.set_num_threads),
    **{f"autocast on {row.title}": _autocast(row.name) for row in DEVICE_TYPES.values() if row.autocast},
    "cache of autocast": _Setting(torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
    "flushing of subnormal numbers": _Setting(_flushes, torch.set_flush_denormal),
    "functions of torch": _Setting(_Functions, _put_functions),
    "hooks of every module": _Setting(_global_hooks, _put_global_hooks),
    "anomaly mode": _Setting(torch.is_anomaly_enabled, torch.set_anomaly_enabled),
}


def now() -> Mapping[str, Any]:
    """The value of every setting, by name."""
    return {name: setting.get() for name, setting in _SETTINGS.items()}


def switched(before: Mapping[str, Any]) -> list[str]:
    """The names of the settings that differ from `before`, which `now` returned."""
    return [name for name, value in now().items() if value != before[name]]


def put_back(before: Mapping[str, Any]) -> list[str]:
    """Restore every setting of `before`, and return the names of those that differed."""
    names = switched(before)
    for name in names:
        _SETTINGS[name].put(before[name])
    return names


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Inside, this is the dtype of tensors that are created without one."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def preserved() -> Iterator[None]:
    """Restore every setting at the end."""
    before = now()
    try:
        yield
    finally:
        put_back(before)
