"""The rounding errors of one dtype: their size, how one is drawn, and how the errors of a running sum add up."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from equivcheck.numerics.dtypes import dtype_row
from equivcheck.numerics.lineage import Origins
from equivcheck.numerics.roundoff import ROUNDINGS, accumulation_roundoff, product_roundoff, unit_roundoff

__all__ = ["ErrorModel", "Rule"]

_BLOCK = 16  # in half precision a running sum may be rounded to the dtype after each block of this many terms

_ALIKE = 2  # bits below the last one of the dtype: values that agree in these bits are rounded alike

_MASK = 1e280  # an error this large belongs to a mask, and not to a computed number


class ErrorModel:
    """Errors of mean zero, as large as one rounding in `dtype` can be, times the factor that `ROUNDINGS` admits.

    Args:
        dtype: The dtype whose rounding is modelled.
        device: The device whose matmuls are modelled.
        noise: The generator of the errors, on the device of the tensors.
        subnormal: Whether values may be so small that the spacing of subnormals, or flushing them to zero, counts.
        coherent: Whether values repeat.
        runs: The number of runs that the outermost dimension holds.
    """

    def __init__(
        self,
        dtype: torch.dtype,
        device: torch.device,
        noise: torch.Generator,
        *,
        subnormal: bool = False,
        coherent: bool = False,
        runs: int = 1,
    ) -> None:
        amplitude = math.sqrt(ROUNDINGS)
        info = torch.finfo(dtype)
        self.noise, self.coherent, self.runs = noise, coherent, runs
        self.u = amplitude * unit_roundoff(dtype)
        self.u_sum = amplitude * accumulation_roundoff(dtype, device)
        self.u_factor = amplitude * product_roundoff(dtype, device)
        row = dtype_row(dtype)
        self.u_exp = row.exp_ulps * unit_roundoff(dtype)
        # half of the spacing of subnormals where they are kept; elsewhere they may be flushed to zero
        spacing = info.smallest_normal * info.eps / 2 if row.keeps_subnormals else info.smallest_normal
        self.smallest = amplitude * float(spacing)
        self.floor = self.smallest if row.keeps_subnormals or subnormal else 0.0
        self.blocked = row.half
        self.origins = Origins()
        self.summed: Tensor | None = None  # relative error of the sums in the latest matmul
        # the lowest bits may differ between equal rows of one float64 matmul
        self._shift = max(14, 52 + round(math.log2(info.eps)) - _ALIKE)
        self._smallest_normal = float(info.smallest_normal) if self.blocked else 0.0

    def draw(self, value: Tensor) -> Tensor:
        """Uniform errors of mean zero and standard deviation one: they are quick to draw, and their sums become normal.

        If values repeat, equal values get equal errors, as in every implementation: the error is a hash of the value.
        Half precision has few numbers, so values repeat in every regime: the probabilities of an almost uniform
        attention are one and the same number, and rounding moves a whole row alike.
        """
        if not (self.coherent or self.blocked):
            draw = torch.rand(value.shape, dtype=torch.float32, device=value.device, generator=self.noise)
            return draw.sub_(0.5).mul_(2 * math.sqrt(3))
        if self._smallest_normal:  # below it numbers are evenly spaced
            value = value + value.sign() * self._smallest_normal
        bits = value.contiguous().view(torch.int64) >> self._shift
        runs = self.runs if value.dim() and value.numel() % self.runs == 0 else 1
        salt = torch.randint(-(2**62), 2**62, (runs, 1), device=value.device, generator=self.noise)
        mixed = (bits.reshape(runs, -1) ^ salt) * -7046029254386353131
        mixed = (mixed ^ (mixed >> 31)) * -4658895280553007687
        # no last xor with a shift: the shift extends the sign, and the xor would remove it
        return mixed.reshape(value.shape).double().mul_(math.sqrt(3) * 2.0**-63)

    def perturb(self, out: Tensor, std: Tensor) -> Tensor:
        """Add errors of standard deviation `std` in place, and the spacing of subnormals if it counts; zeros stay."""
        if self.floor:
            std = std + self.floor * (out != 0)
        return out.add_(std.mul_(self.draw(out)))

    def relative(self, out: Tensor) -> Tensor:
        """The standard deviation of one rounding of each element."""
        # an additive mask has no error, be it infinite or the smallest number: an error would make it infinite, or NaN
        size = out.abs().mul_(self.u)
        return size.masked_fill_(size > _MASK, 0.0)

    def steps(self, n: int) -> float:
        """The error of n partial sums in units of one: the root of n, or n if values repeat and errors are alike."""
        return float(n) if self.coherent else math.sqrt(n)

    def sum_error(self, total: Tensor, root_of_squares: Tensor, n: int) -> Tensor:
        """The error of a sum of n terms: a random walk of the roundings of its partial sums, plus its final rounding.

        Partial sums grow like the root of their number for terms of random sign, and in proportion to it for terms of
        one sign; both are admitted. Equal terms are rounded alike each time: then the errors of n partial sums add up
        to n times one error, and not to its root.

        Args:
            total: The sum.
            root_of_squares: The root of the summed squares of the terms.
            n: The number of terms.
        """
        size = total.abs()
        drift = torch.add(root_of_squares, size, alpha=1 / math.sqrt(3))
        walk = self.u_sum * self.steps(n)
        floor = 0.0
        if self.blocked and n > _BLOCK:
            blocks = math.sqrt(n / _BLOCK)
            walk += self.u * blocks
            floor = self.floor * blocks
        size = size.mul_(self.u).add_(drift, alpha=walk)  # in place: allocating memory takes as long as computing
        if floor:
            size = size.add_(root_of_squares != 0, alpha=floor)
        return size.masked_fill_(~(size <= _MASK), 0.0)  # an additive mask has no error, as in `relative`


Rule = Callable[[ErrorModel, Any, tuple[Any, ...], Mapping[str, Any]], Any]
"""Adds rounding errors to the float64 result of an operation; takes (model, result, args, kwargs)."""
