"""A run of an original in which one reading is changed in each of its attentions."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from equivcheck.engine.causes.carrier import (
    Carrier,
    Core,
    Edit,
    expanded,
    is_product,
    is_whole,
    name_of,
    operands,
    whole_arguments,
)

__all__ = ["Edited"]


class Edited(TorchFunctionMode):
    """Runs an original with one reading changed in each of its attentions."""

    def __init__(self, carrier: Carrier, edit: Edit) -> None:
        """Change nothing yet.

        Args:
            carrier: Where the attentions are.
            edit: What is changed.
        """
        super().__init__()
        self._carrier, self._edit = carrier, edit
        self._calls = 0
        self._ends = {end: start for start, end in carrier.first.items()}
        self._cores: dict[int, Core] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the function; at the places of an attention, with changed arguments and results."""
        options, edit = kwargs or {}, self._edit
        if not is_product(func, args) and not is_whole(func):
            return func(*args, **options)
        number, self._calls = self._calls, self._calls + 1
        if number in self._carrier.whole:
            return self._whole(number, args, options)
        if number in self._carrier.first:
            q, k = operands(func, args)
            changed = list(args)
            changed[q], changed[k] = edit.queries(args[q]), _turned(edit.keys, func, args[k])
            scores = func(*changed, **options)
            core = Core(scores.clone(), self._carrier.scales[number])
            self._cores[number] = core
            return edit.scores(scores, core)
        if number in self._ends:
            core = self._cores.pop(self._ends[number])
            p, v = operands(func, args)
            changed = list(args)
            changed[p], changed[v] = edit.probabilities(args[p], core), edit.values(args[v])
            return edit.output(func(*changed, **options))
        return func(*args, **options)

    def _whole(self, number: int, args: tuple[Any, ...], options: dict[str, Any]) -> Tensor:
        q, k, v, mask, _, causal, scale = whole_arguments(args, options)
        edit = self._edit
        q, k, v = edit.queries(q), edit.keys(expanded(k, q)), edit.values(expanded(v, q))
        scores = q @ k.mT  # (..., T, S)
        core = Core(scores, self._carrier.scales[number])
        scores = edit.scores(scores, core) * scale
        if causal:
            seen = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
            scores = scores.masked_fill(~seen, -math.inf)
        if mask is not None:
            scores = scores.masked_fill(~mask, -math.inf) if mask.dtype is torch.bool else scores + mask
        return edit.output(edit.probabilities(scores.softmax(-1), core) @ v)


def _turned(edit: Callable[[Tensor], Tensor], function: Any, x: Tensor) -> Tensor:
    """An edit of keys (..., S, D), applied to the second factor of a product, which has them as (..., D, S)."""
    if name_of(function) == "einsum":
        return edit(x)
    return edit(x.mT).mT
