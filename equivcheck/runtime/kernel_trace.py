"""Which attention kernel ran: read off what was dispatched while it ran, never off what was asked for."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn.attention import SDPBackend

__all__ = ["EAGER", "KERNELS", "kernels_of"]

KERNELS: dict[str, SDPBackend] = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
"""The kernels of `F.scaled_dot_product_attention`, by the names that `--require-backend` has for them."""

EAGER = "spelled out"
_UNKNOWN = "none known"
_LOG_LEVEL = "KINETO_LOG_LEVEL"
_MATH = "aten::_scaled_dot_product_attention_math"
_OPERATIONS = {  # a piece of an operation's name -> the kernel behind it; torch's own, flash-attn's and xformers'
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
    """The kernels that `action` ran, by name, each once: those of `KERNELS`, `flex`, or `spelled out` for a softmax of its own.

    What torch's dispatcher was handed is recorded on this thread, composite operations and compiled graphs included, so that
    looking changes nothing about what is chosen. Raises whatever `action` raises.
    """
    # not torch.profiler, which takes a second to start
    with _quietly(), torch.autograd.profiler.profile(use_kineto=False) as seen:
        action()
    # not seen.function_events: to build those takes longer than most actions
    events = seen.kineto_results.events() if seen.kineto_results is not None else ()
    counts = Counter(event.name() for event in events)
    found = {
        kernel for name in counts for piece, kernel in _OPERATIONS.items() if piece in name and "backward" not in name
    }
    if counts[_MATH]:
        found.add("math")
    if counts["aten::_softmax"] > counts[_MATH]:  # the math kernel has one softmax inside
        found.add(EAGER)
    order = (*KERNELS, "flex", EAGER)
    return tuple(sorted(found, key=order.index)) or (_UNKNOWN,)


@contextmanager
def _quietly() -> Iterator[None]:
    """Inside, torch's profiler does not tell on standard error that it starts and stops."""
    before = os.environ.get(_LOG_LEVEL)
    os.environ.setdefault(_LOG_LEVEL, "99")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(_LOG_LEVEL, None)
