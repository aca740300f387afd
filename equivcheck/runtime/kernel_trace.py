"""The attention kernels that ran, read from the operations that torch dispatched, never from what was requested."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend

from equivcheck.runtime.required_kernels import KERNEL_NAMES

__all__ = ["EAGER", "KERNELS", "kernels_of"]

_BACKENDS = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
)
KERNELS: dict[str, SDPBackend] = dict(zip(KERNEL_NAMES, _BACKENDS, strict=True))
"""The kernels of `F.scaled_dot_product_attention`, by their names in `--require-backend`."""

EAGER = "spelled out"
_UNKNOWN = "none known"
_LOG_LEVEL = "KINETO_LOG_LEVEL"
_MATH = "aten::_scaled_dot_product_attention_math"
_OPERATIONS = {  # part of an operation's name -> its kernel; operations of torch, flash-attn and xformers
    "scaled_dot_product_flash_attention": "flash",
    "flash_attention_forward": "flash",
    "flash_attn": "flash",
    "scaled_dot_product_cudnn_attention": "cudnn",
    "cudnn_attention_forward": "cudnn",
    "scaled_dot_product_efficient_attention": "efficient",
    "efficient_attention_forward": "efficient",
    "xformers": "efficient",
    "flex_attention": "flex",
}


def kernels_of(action: Callable[[], Any]) -> tuple[str, ...]:
    """The names of the kernels that `action` ran, each once: of `KERNELS`, `flex`, or `EAGER` for a plain softmax.

    The operations that reach torch's dispatcher on this thread are recorded, composite operations and compiled graphs
    included. Recording does not change the choice of kernels. An exception of `action` propagates.
    """
    # torch.profiler would take a second to start
    with _quietly(), torch.autograd.profiler.profile(use_kineto=False) as seen:
        action()
    # seen.function_events would take longer to build than most actions take
    events = seen.kineto_results.events() if seen.kineto_results is not None else ()
    counts = Counter(event.name() for event in events)
    kernels = {
        kernel for name in counts for piece, kernel in _OPERATIONS.items() if piece in name and "backward" not in name
    }
    if counts[_MATH]:
        kernels.add("math")
    if counts["aten::_softmax"] > counts[_MATH]:  # the math kernel has one softmax inside
        kernels.add(EAGER)
    order = (*KERNELS, "flex", EAGER)
    return tuple(sorted(kernels, key=order.index)) or (_UNKNOWN,)


@contextmanager
def _quietly() -> Iterator[None]:
    """Inside, torch's profiler does not write to standard error when it starts and stops."""
    before = os.environ.get(_LOG_LEVEL)
    os.environ.setdefault(_LOG_LEVEL, "99")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_LOG_LEVEL, None)
