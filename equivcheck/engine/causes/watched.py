"""A run of an original that is watched for its attentions."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from equivcheck.engine.causes.carrier import (
    Carrier,
    expanded,
    is_product,
    is_whole,
    operands,
    spelled_out,
    whole_arguments,
)

__all__ = ["Watched"]

_SAME = 1e-9  # of a probability, in float64


class Watched(TorchFunctionMode):
    """Watches a run of an original in float64, without dropout, for its attentions; `carrier` has them afterwards."""

    def __init__(self) -> None:
        """See nothing yet."""
        super().__init__()
        self.carrier = Carrier()
        self._calls = 0
        self._kept: dict[int, Tensor] = {}  # tensors that are derived from scores; they live on, so ids are theirs
        self._from: dict[int, int] = {}  # id of a tensor -> the number of the product that it is derived from
        self._scores: dict[int, Tensor] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run the function, and note what it is derived from."""
        options = kwargs or {}
        product = is_product(func, args)
        number = self._calls
        if product or is_whole(func):  # other calls are not counted: with gradients there are more of them
            self._calls += 1
        if product:
            self._product(number, func, args)
        elif is_whole(func):
            self._whole(number, args, options)
        result = func(*args, **options)
        if isinstance(result, Tensor):
            if product and number not in self._ends() and result.dim() >= 2:
                self._scores[number] = result.detach().clone()  # the original may scale and mask it in place
                self._tag(result, number)
            elif not product:
                self._derive(result, args, options)
        return result

    def _ends(self) -> set[int]:
        return set(self.carrier.first.values())

    def _tag(self, x: Tensor, number: int) -> None:
        self._kept[id(x)], self._from[id(x)] = x, number

    def _derive(self, result: Tensor, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        for x in (*args, *options.values()):
            number = self._from.get(id(x)) if isinstance(x, Tensor) else None
            if number is not None and result.shape[-2:] == self._scores[number].shape[-2:]:
                self._tag(result, number)
                return

    def _product(self, number: int, function: Any, args: tuple[Any, ...]) -> None:
        places = operands(function, args)
        if len(places) != 2:
            return
        left, right = args[places[0]].detach(), args[places[1]].detach()
        start = self._from.get(id(args[places[0]]))
        if start is None or start in self.carrier.first or not _are_probabilities(left):
            return
        scores = self._scores[start]
        self.carrier.first[start] = number
        self.carrier.scales[start] = _scale_of(left, scores) if scores.shape == left.shape else None
        self.carrier.band = max(self.carrier.band, int((left > 0).sum(-1).max()))
        last = max(0, left.size(-1) - left.size(-2))
        self.carrier.causal = self.carrier.causal and not bool((left > 0).triu(1 + last).any())
        if right.dim() > 3 and right.size(-3) == left.size(-3):
            self._count_heads(right)

    def _whole(self, number: int, args: tuple[Any, ...], options: dict[str, Any]) -> None:
        q, k, _, mask, rate, causal, scale = whole_arguments(args, options)
        if rate:
            return
        self.carrier.whole.add(number)
        self.carrier.scales[number] = scale if mask is None or mask.dtype is torch.bool else None
        self.carrier.band = k.size(-2)
        self.carrier.causal = self.carrier.causal and causal
        if q.dim() > 3:
            self._count_heads(expanded(k, q))

    def _count_heads(self, keys: Tensor) -> None:
        heads = keys.size(-3)
        self.carrier.heads = max(self.carrier.heads, heads)
        together = 1
        while together < heads and bool((keys.select(-3, together) == keys.select(-3, 0)).all()):
            together += 1
        self.carrier.groups = max(self.carrier.groups, together)


def _are_probabilities(p: Tensor) -> bool:
    if not p.is_floating_point() or not p.numel() or bool((p < 0).any()) or bool(p.isnan().any()):
        return False
    return bool((p.sum(-1) <= 1 + _SAME).all()) and bool((p.sum(-1) > 0).any())


def _scale_of(p: Tensor, scores: Tensor) -> float | None:
    """The factor c for which p is the softmax of c * scores over the keys where p is not 0; None if there is none."""
    seen = p > 0
    counted = seen.sum(-1, keepdim=True).clamp(min=1)
    logs = torch.where(seen, p.clamp(min=torch.finfo(p.dtype).tiny).log(), torch.zeros_like(p))
    s = torch.where(seen, scores, torch.zeros_like(scores))
    a = torch.where(seen, logs - logs.sum(-1, keepdim=True) / counted, torch.zeros_like(p))
    b = torch.where(seen, s - s.sum(-1, keepdim=True) / counted, torch.zeros_like(p))
    square = float((b * b).sum())
    if not math.isfinite(square) or square == 0:
        return None
    scale = float((a * b).sum()) / square
    again = spelled_out(scores, seen, scale)
    return scale if float((again - p).abs().max()) <= 1e3 * _SAME else None
