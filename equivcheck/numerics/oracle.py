"""The oracle: the original evaluated in float64, even where its code casts to narrower dtypes."""

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
_aten = torch.ops.aten
_UNINITIALIZED = frozenset(
    (
        _aten.empty,
        _aten.empty_like,
        _aten.empty_permuted,
        _aten.empty_strided,
        _aten.new_empty,
        _aten.new_empty_strided,
    )
)
"""Operations whose result has what was in memory before."""


class Widened(TorchDispatchMode):
    """While active, every cast to a narrower float dtype is a cast to float64.

    An original that upcasts its softmax to float32, say, would otherwise put float32's rounding into the truth. `asked`
    has the narrower dtypes that the original's code asked for.
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
        """The arguments, with float64 in place of every narrower float dtype."""
        if any(isinstance(a, torch.dtype) and a in _NARROW for a in args):
            args = tuple(torch.float64 if isinstance(a, torch.dtype) and a in _NARROW else a for a in args)
        wide = {
            name: torch.float64 if isinstance(value, torch.dtype) and value in _NARROW else value
            for name, value in kwargs.items()
        }
        return args, wide


class Greatest(Widened):
    """`Widened`, which also records in `greatest` the greatest finite absolute value of any result."""

    def __init__(self) -> None:
        super().__init__()
        self.greatest = 0.0

    def __torch_dispatch__(  # torch's protocol
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = super().__torch_dispatch__(func, types, args, kwargs)
        if func.overloadpacket in _UNINITIALIZED and result.is_floating_point():
            result.zero_()  # what was in memory before may be a large number, and views of it are results as well
        for value in result if isinstance(result, tuple | list) else (result,):
            if isinstance(value, Tensor) and value.is_floating_point() and value.numel():
                size = float(torch.nan_to_num(value.detach(), posinf=0.0, neginf=0.0).abs().max())
                self.greatest = max(self.greatest, size)
        return result


@contextmanager
def math_backend() -> Iterator[None]:
    """Inside, torch decomposes fused attention into matmuls and a softmax.

    That includes modules of torch that are one operation in eval mode without autograd, such as
    `nn.MultiheadAttention`.
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
    """Module and inputs on `device` in float64; the module changes in place, the inputs are exact copies."""
    wide = tuple(
        x.detach().to(device, torch.float64) if x.is_floating_point() else x.detach().clone().to(device) for x in inputs
    )
    return module.to(device, torch.float64), wide
