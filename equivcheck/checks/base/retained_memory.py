"""Memory that a module retains: counted by name before and after many calls, so that a leak has a name."""

import gc
import types
from collections import deque
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.errors import Mismatch
from equivcheck.pairs.problem import Problem
from equivcheck.runtime.device import type_of

__all__ = ["check_growth", "sizes"]

_CONTAINERS = (dict, list, tuple, set, frozenset, deque)
_ROUNDS, _CALLS = 3, 2
_MOST = 20_000  # objects that are looked at, each once


def check_growth(problem: Problem, module: nn.Module) -> None:
    """Check that nothing that the module retains grows with every round of the same calls.

    Raises:
        Mismatch: Something is larger after each of three rounds.
    """

    def rounds() -> list[dict[str, int]]:
        sizes_by_round = []
        for _ in range(_ROUNDS + 1):
            for _ in range(_CALLS):
                problem.run(module, problem.inputs, gradients=True)
                problem.run(module, problem.inputs, gradients=False)
            sizes_by_round.append(sizes(module, problem.device))
        return sizes_by_round

    if _growing(rounds()):
        gc.collect()  # objects that wait for their collection are not retained
        for name, by in _growing(rounds()).items():
            raise Mismatch(
                f"{name} grows: by {by} things in {2 * _CALLS} calls with the same input, time after time", where=name
            )


def _growing(sizes_by_round: list[dict[str, int]]) -> dict[str, int]:
    steps = {
        name: [b.get(name, 0) - a.get(name, 0) for a, b in pairwise(sizes_by_round)] for name in sizes_by_round[-1]
    }
    return {name: by[-1] for name, by in steps.items() if all(step > 0 for step in by)}


def sizes(module: nn.Module, device: torch.device) -> dict[str, int]:
    """Count the objects and numbers that are reachable from each attribute of a module and the globals of its code.

    Returns:
        Counts by the name of an attribute or a global; on a device that counts memory, its allocated bytes, too.
    """
    seen: set[int] = {id(sub) for sub in module.modules()}
    counts = {}
    for path, sub in module.named_modules():
        for name, value in vars(sub).items():
            counts[f"{path}.{name}" if path else name] = _size(value, seen)
        for where, value in _behind(type(sub)):
            counts[where] = counts.get(where, 0) + _size(value, seen)
    if type_of(device).counts_memory:
        counts["memory on the device"] = type_of(device).allocated_bytes(device)
    return counts


def _behind(cls: type) -> Iterator[tuple[str, Any]]:
    """The containers of a class and its bases, except torch's, and the global containers that their functions name."""
    for owner in cls.__mro__:
        if owner.__module__.partition(".")[0] in ("torch", "builtins"):
            continue
        for name, value in list(vars(owner).items()):
            if isinstance(value, _CONTAINERS):
                yield f"{owner.__qualname__}.{name}", value
            elif isinstance(value, types.FunctionType):
                yield from _globals(value)


def _globals(function: types.FunctionType) -> Iterator[tuple[str, Any]]:
    for name in function.__code__.co_names:
        value = function.__globals__.get(name)
        if isinstance(value, dict | list | set | deque):
            yield f"the global {name!r} of {function.__module__}", value


def _size(root: Any, seen: set[int]) -> int:
    """The number of objects and numbers that are reachable from `root` and not in `seen`."""
    count, waiting = 0, [root]
    while waiting and len(seen) < _MOST:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, int | float | str | bytes | type | types.ModuleType | None):
            continue
        seen.add(id(thing))
        count += 1
        if isinstance(thing, Tensor):
            count += thing.numel()
        elif isinstance(thing, _CONTAINERS):
            count += len(thing)
            waiting.extend(thing.values() if isinstance(thing, dict) else thing)
        elif isinstance(thing, types.FunctionType):
            waiting.extend(cell.cell_contents for cell in thing.__closure__ or () if _filled(cell))
            waiting.extend(value for _, value in _globals(thing))
            waiting.append(thing.__dict__)
        elif isinstance(thing, types.MethodType):
            waiting.extend((thing.__self__, thing.__func__))
        elif isinstance(thing, partial):
            waiting.extend((thing.func, thing.args, thing.keywords))
        elif callable(information := getattr(thing, "cache_info", None)):  # of functools.lru_cache
            count += information().currsize
        elif hasattr(thing, "__dict__") and type(thing).__module__.partition(".")[0] != "torch":
            waiting.append(vars(thing))
    return count


def _filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False
