"""The dtypes in which cases are run, one row each, as data that needs no torch."""

from dataclasses import dataclass

__all__ = ["DTYPES", "DTYPE_ROWS", "HALF", "WIDE", "Dtype", "dtype_row"]


@dataclass(frozen=True, kw_only=True)
class Dtype:
    """One dtype.

    Attributes:
        name: torch's name for it.
        half: Whether it has few numbers: values repeat, and a running sum may be kept in the dtype between blocks.
        exp_ulps: The spread of an exponential's error, in unit roundoffs; 0 if one rounding of the result hides it.
        keeps_subnormals: Whether every implementation keeps numbers below the smallest normal one.
        large_value: A factor that brings values near the largest number, with sums that are still finite.
        loud_value: A value at a position that must stay invisible: large enough to show through a mask that is only a
            large finite number, small enough for finite products.
        timed: Whether `bench` times it.
    """

    name: str
    half: bool = False
    exp_ulps: float = 0.0
    keeps_subnormals: bool = False
    large_value: float
    loud_value: float
    timed: bool = False


DTYPE_ROWS = (  # the simplest first: counterexamples shrink toward it
    # vectorised exponentials are good to some 20 units in the last place (torch's `exp_u20`)
    Dtype(name="float32", exp_ulps=16.0, large_value=2.0**100, loud_value=1e5, timed=True),
    Dtype(name="float64", exp_ulps=4.0, large_value=2.0**300, loud_value=1e5),
    Dtype(name="bfloat16", half=True, large_value=2.0**100, loud_value=1e5, timed=True),
    Dtype(name="float16", half=True, keeps_subnormals=True, large_value=2.0**8, loud_value=16.0, timed=True),
)

DTYPES = tuple(row.name for row in DTYPE_ROWS)
HALF = tuple(row.name for row in DTYPE_ROWS if row.half)
WIDE = tuple(row.name for row in DTYPE_ROWS if not row.half)

_BY_NAME = {row.name: row for row in DTYPE_ROWS}


def dtype_row(name: object) -> Dtype:
    """The row of a dtype, which is given by its name or as torch's object."""
    return _BY_NAME[str(name).removeprefix("torch.")]
