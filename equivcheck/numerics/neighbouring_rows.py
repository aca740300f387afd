"""Matrix products in which a row that is not finite reaches the row before it: a property of processor and dtype."""

import math
from functools import cache

import torch
from torch import Tensor

__all__ = ["before_rows_not_finite", "product_reaches_neighbours"]


@cache
def product_reaches_neighbours(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether a product of this dtype multiplies the next row by zero, which gives NaN where that is not finite.

    Processors that multiply pairs of numbers in half precision do so where the inner size is odd.
    """
    a = torch.ones(42, 49, dtype=dtype, device=device)
    a[20] = math.nan
    product = a @ torch.ones(49, 8, dtype=dtype, device=device)  # (42, 8)
    return not bool(product[19].isfinite().all())


def before_rows_not_finite(x: Tensor) -> Tensor:
    """A mask of the rows of a tensor (..., rows, width) whose next row in memory is not finite."""
    rows = ~x.isfinite().flatten(0, -2).all(-1)  # (rows of all,)
    before = torch.cat((rows[1:], rows.new_zeros(1)))
    return before.view(*x.shape[:-1], 1).expand(x.shape)
