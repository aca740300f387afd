"""An anchor made small, so that a trial beside it costs a millisecond or two."""

from collections.abc import Callable
from typing import Any

from equivcheck.cases.case import Case
from equivcheck.engine.discovery.factors import put

__all__ = ["made_small"]

_SMALL: dict[str, tuple[Any, ...]] = {
    "dtype": ("float32",),
    "seq_len": (16, 32, 64),
    "head_size": (16, 32, 64),
    "n_head": (1,),
    "batch_size": (1,),
}


def made_small(anchor: Case, runs: Callable[[Case], bool]) -> Case:
    """The case with smaller sizes, and the dtype with the quickest arithmetic, as far as a side runs with them.

    Args:
        anchor: A case with which the side runs.
        runs: Whether it runs with another one.
    """
    for name, values in _SMALL.items():
        for value in values:
            if type(value) is int and value >= getattr(anchor, name):
                break
            case = put(anchor, name, value)
            if case == anchor or runs(case):
                anchor = case
                break
    return anchor
