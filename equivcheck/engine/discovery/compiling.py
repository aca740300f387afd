"""Whether a side compiles for each shape: then sizes are drawn from few values, so that it compiles a few times.

torch.compile and Triton are asked how much they have compiled; no clock is read. A kernel that is compiled for a few
sorts of sizes, as Triton's are for multiples of 16, does not count.
"""

import gc
import sys
from typing import Any

from equivcheck.cases.case import Case
from equivcheck.engine.discovery.factors import put
from equivcheck.engine.discovery.trials import Trials

__all__ = ["compiles_for_each_shape", "few_sizes"]

_LENGTHS = ((33, 65, 129), (48, 80, 112), (64, 128, 192), (128, 256, 384))
"""Lengths of one sort each: the third of them is compiled only by what compiles for each shape."""
_FEW = {"seq_len": (1, 16, 33, 64, 128, 256), "head_size": (32, 64), "n_head": (1, 2, 4), "batch_size": (1, 2)}


def compiles_for_each_shape(trials: Trials, anchor: Case) -> bool:
    """Whether a side compiles something on the third of three lengths of one sort.

    Args:
        trials: The side.
        anchor: A case with which it runs.
    """
    if not {"torch._dynamo", "triton"} & sys.modules.keys():
        return False
    if not trials.runs(anchor.but(seed=anchor.seed + 1)) or not compiled():
        return False
    dynamo: Any = sys.modules.get("torch._dynamo")
    if dynamo is not None:
        dynamo.reset()  # past a number of graphs it compiles nothing more of a function
    for lengths in _LENGTHS:
        cases = [put(anchor, "seq_len", length) for length in lengths]
        if all(trials.runs(case) for case in cases[:2]):
            before = compiled()
            return trials.runs(cases[2]) and compiled() > before
    return False


def few_sizes(trials: Trials, anchor: Case) -> str:
    """A rule of few sizes, each of which the side runs beside the anchor.

    Args:
        trials: The original.
        anchor: A case with which it runs.
    """
    rules = []
    for name, values in _FEW.items():
        kept = [value for value in values if trials.runs(put(anchor, name, value))] or [getattr(anchor, name)]
        rules.append(f"{name} in ({', '.join(map(str, kept))})")
    return " and ".join(rules)


def compiled() -> int:
    """How many graphs and kernels this process has compiled."""
    count = 0
    dynamo: Any = sys.modules.get("torch._dynamo.utils")
    if dynamo is not None:
        count += int(dynamo.counters["stats"]["unique_graphs"])
    triton: Any = sys.modules.get("triton.runtime.jit")
    if triton is not None:
        kernels = [thing for thing in gc.get_objects() if isinstance(thing, triton.JITFunction)]
        count += sum(_kernels_of(kernel) for kernel in kernels)
    return count


def _kernels_of(kernel: Any) -> int:
    caches = getattr(kernel, "device_caches", None) or getattr(kernel, "cache", None) or {}
    # a cache of each device: a dictionary, or a tuple that begins with one
    each = (cache[0] if isinstance(cache, tuple) else cache for cache in list(caches.values()))
    return sum(len(cache) for cache in each if isinstance(cache, dict))
