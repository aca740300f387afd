"""The truth: the original evaluated in float64, whatever dtypes its own code asks for on the way."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from equivcheck.numerics.dtypes import DTYPES

__all__ = ["Greatest", "Widened", "math_backend", "to_float64"]

_NARROW = frozenset(getattr(torch, name) for name in DTYPES if name != "float64")


class Widened(TorchDispatchMode):
    """Runs everything below it in float64: a cast to a narrower float, asked for by the original's own code, stays float64.

    An original that upcasts its softmax to float32, say, would otherwise put float32's rounding into the truth. `asked` has
    the dtypes that were asked for so.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.asked: set[torch.dtype] = set()

    def __torch_dispatch__(  # torch's protocol
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        wide, options = self.widen(args, kwargs or {})
        if wide is not args or options != kwargs:
            given = (*args, *(kwargs or {}).values())
            self.asked.update(a for a in given if isinstance(a, torch.dtype) and a in _NARROW)
        return func(*wide, **options)

    @staticmethod
    def widen(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same arguments with every narrower float dtype among them replaced by float64."""
        if any(isinstance(a, torch.dtype) and a in _NARROW for a in args):
            args = tuple(torch.float64 if isinstance(a, torch.dtype) and a in _NARROW else a for a in args)
        wide = {
            name: torch.float64 if isinstance(value, torch.dtype) and value in _NARROW else value
            for name, value in kwargs.items()
        }
        return args, wide


class Greatest(Widened):
    """The same, and the greatest finite number that any operation gives."""

    def __init__(self) -> None:
        super().__init__()
        self.greatest = 0.0

    def __torch_dispatch__(  # torch's protocol
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        found = super().__torch_dispatch__(func, types, args, kwargs)
        for value in found if isinstance(found, tuple | list) else (found,):
            if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
                size = float(torch.nan_to_num(value.detach(), posinf=0.0, neginf=0.0).abs().max())
                self.greatest = max(self.greatest, size)
        return found


@contextmanager
def math_backend() -> Iterator[None]:
    """Inside, a fused attention that the original itself calls is taken apart into matmuls and a softmax.

    So are the modules of torch that are one operation in eval mode without autograd, `nn.MultiheadAttention` among them.
    """
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def to_float64(
    module: nn.Module, inputs: Sequence[Tensor], device: torch.device
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """Module and inputs on `device`, every float in float64; the module is changed in place, the inputs are copied exactly."""
    wide = tuple(
        x.detach().to(device, torch.float64) if x.is_floating_point() else x.detach().clone().to(device) for x in inputs
    )
    return module.to(device, torch.float64), wide
