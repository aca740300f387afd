"""The constants of the budget: the size of one rounding, and the number of roundings that are admitted."""

import torch

__all__ = ["ROUNDINGS", "accumulation_roundoff", "product_roundoff", "unit_roundoff"]

ROUNDINGS = 4
"""A right implementation may commit this many times the roundings of the original: running sums by blocks, a softmax by
hand, rescaling, recomputation in the backward pass. Independent errors add up as the root of their number."""


def unit_roundoff(dtype: torch.dtype) -> float:
    """Half the distance from 1 to the next number: the largest relative error of one rounding to nearest."""
    return float(torch.finfo(dtype).eps) / 2


def accumulation_roundoff(dtype: torch.dtype, device: torch.device) -> float:
    """The roundoff of the running sums in a matmul: that of the dtype from float32 up, float32's for half precision."""
    return min(unit_roundoff(dtype), 2.0**-24)


def product_roundoff(dtype: torch.dtype, device: torch.device) -> float:
    """The roundoff of the factors in a matmul: TF32's where the process allows it for float32 on CUDA, else 0."""
    # CUDA is the only type of device with TF32: another one with such matmuls belongs here
    if dtype is torch.float32 and device.type == "cuda" and torch.get_float32_matmul_precision() != "highest":
        return 2.0**-11 if torch.get_float32_matmul_precision() == "high" else 2.0**-9
    if dtype is torch.float32 and device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32:
        return 2.0**-11
    return 0.0
