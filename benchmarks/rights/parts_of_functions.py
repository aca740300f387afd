"""What candidates of functions have in common: scale, dtype of a result, and grouped heads."""

import torch
from torch import Tensor


def scale_of(q: Tensor, scale: float | None) -> float:
    return q.size(-1) ** -0.5 if scale is None else scale


def result_dtype(t: Tensor) -> torch.dtype:
    """What a matmul of `t` would return: autocast's dtype, where it is on."""
    if t.dtype != torch.float64 and torch.is_autocast_enabled(t.device.type):
        return torch.get_autocast_dtype(t.device.type)
    return t.dtype


def shared_heads(q: Tensor, k: Tensor, v: Tensor, enable_gqa: bool) -> tuple[Tensor, Tensor]:
    if not enable_gqa:
        return k, v
    return tuple(t.repeat_interleave(q.size(1) // t.size(1), dim=1) for t in (k, v))
