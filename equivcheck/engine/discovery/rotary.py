"""Rotary positions: whether the original turns pairs of channels, and over which channels its scores are sums.

An original that splits heads of an odd size in two computes something by accident: torch broadcasts one half against
the other, and the queries have another size than the heads.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

from equivcheck.cases.case import Case
from equivcheck.pairs.cache import Memory
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.sides import REFERENCE, ensure_foreign, running
from equivcheck.runtime import global_state

__all__ = ["accidents_of"]

_TURNING = ("cos", "sin", "polar", "view_as_complex", "complex")
_PRODUCTS = {"bmm": 0, "baddbmm": 1}  # the place of the first factor, (B, n, inner)
_LENGTH = 11  # a product of probabilities and values has it as its inner size: no head has this size
_TYPICAL_SIZES = (64, 32, 128, 16, 8)


class _Watched(TorchDispatchMode):
    """Counts the inner sizes of products of three dimensions, and notes the functions of angles."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.turns = False
        self.inner: Counter[int] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__.rstrip("_")
        if name in _TURNING:
            self.turns = True
        elif name in _PRODUCTS:
            self.inner[args[_PRODUCTS[name]].size(-1)] += 1
        elif "scaled_dot_product" in name:
            self.inner[args[0].size(-1)] += 1
        return func(*args, **(kwargs or {}))


def accidents_of(subject: Pair, anchor: Case) -> Callable[[Case], str]:
    """A function that says of a case on which the original runs whether its scores are sums over the whole head.

    It says something only of originals with rotary positions, in which they are at a typical even head size.

    Args:
        subject: The pair.
        anchor: A case with which the original runs.
    """
    subject = replace(subject, memory=Memory())
    usual: _Watched | None = None
    typical = 0
    for size in dict.fromkeys((anchor.head_size, *_TYPICAL_SIZES)):
        usual = _watch(subject, anchor, size)
        if usual is not None:
            typical = size
            break
    if usual is None or not usual.turns or not usual.inner[typical]:
        return lambda case: ""
    expected = usual.inner[typical]
    known: dict[int, str] = {}

    def accident(case: Case) -> str:
        size = case.head_size
        if size in (_LENGTH, typical):
            return ""
        if size not in known:
            watched = _watch(subject, anchor, size)
            others = watched is not None and watched.inner[size] != expected
            known[size] = f"with rotary positions a score is no sum over the {size} channels of a head" * others
        return known[size]

    return accident


def _watch(subject: Pair, anchor: Case, size: int) -> _Watched | None:
    """The original is built and run once, on few positions where it allows that; None if it does not run."""
    for length in dict.fromkeys((_LENGTH, anchor.seq_len)):
        case = anchor.but(head_size=size, seq_len=length, block_size=max(length, anchor.block_size))
        watched = _Watched()
        try:
            problem = subject.problem(case)
            with global_state.preserved(), running(REFERENCE), watched:
                problem.run(problem.reference, problem.inputs, gradients=False)
        except Exception as error:
            ensure_foreign(error)
            continue
        return watched
    return None
