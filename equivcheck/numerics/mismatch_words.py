"""The description of a comparison in words."""

import math

from equivcheck.numerics.comparison import LEVELS, Comparison

__all__ = ["describe", "describe_pass"]


def describe(comparison: Comparison, *, dtype: str) -> str:
    """Describe a failed comparison: which tensor, how many elements, how large, where, and the allowed error.

    Args:
        comparison: The comparison.
        dtype: The dtype of the case.
    """
    c = comparison
    where = f" at {c.index}" if c.index else ""
    if c.problem:
        values = f": {c.candidate:g} where the oracle has {c.oracle:g}{where}" if not math.isnan(c.oracle) else ""
        return f"{c.name}: {c.problem}{values}"
    n_elements = math.prod(c.shape)
    n_rows = n_elements // (c.shape[-1] if c.shape else 1)
    of = {"element": f"error{where}", "row": f"norm of the error in row {c.row}", "tensor": "norm of the whole error"}
    wider = ", twice what the original itself errs by" if c.reference_ratio > 1 else ""
    return "\n".join(
        (
            f"{c.name} {c.shape} is {c.ratio:.3g} times further from the oracle than rounding in {dtype} explains",
            f"  {of[c.level]}: {c.error:.3g}, allowed {c.allowed:.3g}{wider}; "
            f"greatest{where}: candidate {c.candidate:.9g}, oracle {c.oracle:.9g}",
            f"  over budget: {c.over} of {n_elements} elements, {c.rows_over} of {n_rows} rows; "
            f"the original itself is at {c.reference_ratio:.2g} of the budget",
        )
    )


def describe_pass(comparison: Comparison) -> str:
    """Describe a comparison that passed: what its ratio is made of, by element, by row and as a whole, in lines.

    Args:
        comparison: The comparison, with its errors by level; without them there is nothing to describe.
    """
    c = comparison
    if not c.by_level:
        return ""
    of = {
        "element": f"error at {c.index}",
        "row": f"norm of the error in row {c.row}",
        "tensor": "norm of the whole error",
    }
    lines = [
        f"{of[level]}: {error:.3g}, allowed {allowed:.3g}, ratio {error / allowed:.2g}" if error else f"{of[level]}: 0"
        for level, (error, allowed) in zip(LEVELS, c.by_level, strict=True)
    ]
    values = f"at {c.index}: candidate {c.candidate:.9g}, oracle {c.oracle:.9g}"
    return "\n".join((*lines, values, f"the original itself is at {c.reference_ratio:.2g} of the budget"))
