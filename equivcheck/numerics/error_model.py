"""The errors of rounding in one dtype: how large they are, how one is drawn, and how those of a running sum add up."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from equivcheck.numerics.dtypes import dtype_row
from equivcheck.numerics.lineage import Origins
from equivcheck.numerics.roundoff import ROUNDINGS, accumulation_roundoff, product_roundoff, unit_roundoff

__all__ = ["ErrorModel", "Rule"]

_BLOCK = 16  # in half precision a sum may be kept in the dtype itself from one block of this many terms to the next

_ALIKE = 2  # bits below the last one of the dtype: values that agree in them are rounded alike

_MASK = 1e280  # no number that is computed has an error as large


class ErrorModel:
    """Errors of mean zero, as large as one rounding in `dtype` can be, times what `ROUNDINGS` admits.

    Draws from `noise`, a generator on the device of the tensors. `subnormal` says that values may be so small that the
    spacing of subnormals, or flushing them to zero, counts; `coherent` that values repeat. `runs` is how many runs go
    through together, in the outermost dimension.
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
        # where subnormals are kept, half of their spacing; elsewhere they may be flushed to zero
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
        """Errors of mean zero and standard deviation one, uniform ones: they are quick, and their sums become normal.

        Where values repeat, equal ones get equal errors, as they do in every implementation: a hash of the value says which.
        In half precision few numbers are to be had, and values repeat in every regime: the probabilities of an attention that is
        almost uniform are one and the same number, and what rounding does to it is done to a whole row.
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
        # no last xor with a shift: shifted bits carry the sign along, and would take it away
        return mixed.reshape(value.shape).double().mul_(math.sqrt(3) * 2.0**-63)

    def perturb(self, out: Tensor, std: Tensor) -> Tensor:
        """Add errors of the given size in place, and where subnormals matter one of their spacing; exact zeros stay."""
        if self.floor:
            std = std + self.floor * (out != 0)
        return out.add_(std.mul_(self.draw(out)))

    def relative(self, out: Tensor) -> Tensor:
        """The size of one rounding of each element."""
        # a mask that is added has no error, be it infinite or the smallest number: an error would make it infinite, or NaN
        size = out.abs().mul_(self.u)
        return size.masked_fill_(size > _MASK, 0.0)

    def steps(self, n: int) -> float:
        """How many times one error the errors of n partial sums are together; where values repeat they are all alike."""
        return float(n) if self.coherent else math.sqrt(n)

    def sum_error(self, total: Tensor, root_of_squares: Tensor, n: int) -> Tensor:
        """Error of a sum of n terms: random walks of the roundings of its partial sums, plus its own final rounding.

        `root_of_squares` is the root of the summed squares of the terms. Partial sums grow like the root of their number
        for terms of random sign and in proportion to it for terms of one sign; both are admitted. Equal terms are rounded
        alike, time after time: then the errors of n partial sums add up as n and not as its root.
        """
        size = total.abs()
        drift = torch.add(root_of_squares, size, alpha=1 / math.sqrt(3))
        walk = self.u_sum * self.steps(n)
        floor = 0.0
        if self.blocked and n > _BLOCK:
            blocks = math.sqrt(n / _BLOCK)
            walk += self.u * blocks
            floor = self.floor * blocks
        size = size.mul_(self.u).add_(drift, alpha=walk)  # in place: it takes as long to find memory as to compute
        if floor:
            size = size.add_(root_of_squares != 0, alpha=floor)
        return size.masked_fill_(~(size <= _MASK), 0.0)  # a mask that is added to a product, as in `relative`


Rule = Callable[[ErrorModel, Any, tuple[Any, ...], Mapping[str, Any]], Any]
"""Adds to the float64 result of an operation, of which it gets the arguments, too, what rounding may do to it."""
