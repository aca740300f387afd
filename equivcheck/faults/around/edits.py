"""Changes of a tensor of outputs that faults of several kinds make."""

import torch
from torch import Tensor

__all__ = ["half_off", "last_off", "spelled_out", "swapped"]


def last_off(y: Tensor) -> Tensor:
    """The last position is 2 % off."""
    last = torch.arange(y.size(-2), device=y.device).unsqueeze(-1) == y.size(-2) - 1
    return torch.where(last, y * 1.02, y)


def half_off(y: Tensor) -> Tensor:
    """In half precision everything is 10 % off."""
    return y * (1.1 if torch.finfo(y.dtype).bits == 16 else 1.0)


def swapped(y: Tensor) -> Tensor:
    """The last two positions change places."""
    return torch.cat((y[..., :-2, :], y[..., -2:, :].flip(-2)), dim=-2)


def spelled_out(y: Tensor) -> Tensor:
    """The same, and a softmax that no kernel fuses beside it."""
    return y + 0 * torch.nan_to_num(y.softmax(-1))
