"""The truth: the original evaluated in float64, whatever dtypes its own code asks for on the way."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["Widened", "spelled_out", "to_float64"]

_NARROW = frozenset({torch.float32, torch.float16, torch.bfloat16})


class Widened(TorchDispatchMode):
    """Runs everything below it in float64: a cast to a narrower float, asked for by the original's own code, stays float64.

    An original that upcasts its softmax to float32, say, would otherwise put float32's rounding into the truth.
    """

    def __torch_dispatch__(  # torch's protocol
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        args, kwargs = self.widen(args, kwargs or {})
        return func(*args, **kwargs)

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


@contextmanager
def spelled_out() -> Iterator[None]:
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


Run = Callable[[], dict[str, Tensor]]
