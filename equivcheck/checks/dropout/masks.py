"""Dropout masks are read off a candidate with any kernel and put into the original, so that random results compare.

For one generator state and one shape of q and k, a kernel's mask does not depend on the values of q and k. With
q = k = 0 every visible probability is the same. With one-hot columns as V the output *is* the dropped probabilities of
those keys. So ceil(T / D) runs from the same generator state show the whole mask. The original in float64, with that
mask in the place of its own, is then the oracle of outputs and of all gradients: another mask in the backward pass is
an error.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from equivcheck.cases.case import Case
from equivcheck.checks.dropout.attention_layers import Attention, find_attentions, one_hot
from equivcheck.errors import NotOpened

__all__ = ["Injected", "Masks", "NotOpened", "Reading", "Recovery", "inject", "joined"]

_DROPOUTS = (F.dropout, torch.dropout, torch.native_dropout)


@dataclass(frozen=True, eq=False)
class Masks:
    """Masks of one forward pass, bool: True for an element that is kept.

    Attributes:
        attention: The mask of the probabilities of each attention layer, (B, H, T, T).
        residual: The mask of the output of each attention layer, (B, T, C); none for functions.
        outside: The masks of all other dropouts, in the order of the calls.
    """

    attention: tuple[Tensor, ...]
    residual: tuple[Tensor, ...]
    outside: tuple[Tensor, ...]

    def to(self, device: torch.device) -> "Masks":
        """The same masks on another device."""
        groups = (self.attention, self.residual, self.outside)
        return Masks(*(tuple(keep_mask.to(device) for keep_mask in group) for group in groups))

    def same(self, other: "Masks") -> bool:
        """Whether both keep exactly the same elements."""
        these, those = ((m.attention, m.residual, m.outside) for m in (self, other))
        return all(
            len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
            for a, b in zip(these, those, strict=True)
        )


class Reading(NamedTuple):
    """What one forward pass shows.

    Attributes:
        weights: The probabilities of some keys by attention layer, (B, H, T, D).
        left: The mask of the output of each attention layer, (B, T, C); none for functions.
        outside: The masks of all other dropouts, in the order of the calls.
    """

    weights: list[Tensor]
    left: tuple[Tensor, ...]
    outside: tuple[Tensor, ...]


@dataclass
class Recovery:
    """Reads masks off a module.

    A module with an unexpected inside raises NotOpened: then nothing is known of its masks.

    Attributes:
        case: The case for which the module is built.
        module: The module.
        inputs: Its inputs.
        run: Calls it once on inputs of the same shapes, from the same generator state each time.
    """

    case: Case
    module: nn.Module
    inputs: Sequence[Tensor]
    run: Callable[[Sequence[Tensor]], Mapping[str, Tensor]]

    def masks(self, length: int) -> Masks:
        """Return the masks of one forward pass over T = `length` positions.

        Raises:
            NotOpened: They cannot be read off.
        """
        readings = [self.read(first, length) for first in range(0, length, self.case.head_size)]
        _, left, outside = readings[-1]
        return Masks(tuple(weights != 0 for weights in joined(readings, length)), left, outside)

    def read(self, first: int, length: int, out_value: float = 1.0) -> Reading:
        """Return what a forward pass over T = `length` positions shows, of D keys from `first` on.

        Args:
            first: The first of these keys.
            length: T.
            out_value: What the last linear of each attention layer gives.

        Raises:
            NotOpened: It shows nothing.
        """
        attentions = find_attentions(self.module, self.case)
        if not attentions[0].linears:
            return Reading([self._of_function(first, length)], (), ())
        with ExitStack() as stack:
            taken = [stack.enter_context(attention.read(first, length, out_value)) for attention in attentions]
            recording = stack.enter_context(_Recording(attentions))
            self.run(self.inputs)
        if any({"weights", "left"} - set(t) for t in taken):
            raise NotOpened("its linears are not called as modules")
        left = tuple(t["left"] != 0 for t in taken)
        return Reading([t["weights"] for t in taken], left, tuple(recording.keep_masks))

    def _of_function(self, first: int, length: int) -> Tensor:
        q, k, v = self.inputs
        hot = one_hot(first, length, v.shape[-1], like=v).expand(v.shape)  # (B, H, T, D)
        results = self.run([torch.zeros_like(q), torch.zeros_like(k), hot.clone(memory_format=torch.contiguous_format)])
        return results["output"].detach()


def joined(readings: Sequence[Reading], length: int) -> list[Tensor]:
    """The probabilities (B, H, T, T) of each attention layer, of readings of one D keys after the other."""
    by_layer = zip(*(reading.weights for reading in readings), strict=True)
    return [torch.cat(parts, -1)[..., :length] for parts in by_layer]


class _Recording(TorchFunctionMode):
    """Records the masks of dropouts outside of every attention layer.

    Each dropout is run on ones. This draws the same numbers as the dropout itself.
    """

    def __init__(self, attentions: Sequence[Attention]) -> None:
        super().__init__()
        self.attentions = attentions
        self.keep_masks: list[Tensor] = []

    def __torch_function__(  # torch's protocol
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.dropout and not any(a.inside for a in self.attentions):
            x, rate, training = _dropout_call(func, args, kwargs)
            if training and rate > 0:
                scaled_mask = F.dropout(torch.ones_like(x), rate, True)
                self.keep_masks.append(scaled_mask.detach() != 0)
                return x * scaled_mask
        return func(*args, **kwargs)


def _dropout_call(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Tensor, float, bool]:
    """The input, the rate and whether anything is dropped, of a call of one of `_DROPOUTS`."""
    rate_name, mode_name = ("p", "train") if func is not F.dropout else ("p", "training")
    given = dict(zip(("input", rate_name, mode_name), args, strict=False)) | dict(kwargs)
    rate, mode = given.get(rate_name, 0.5), given.get(mode_name, True)
    return given["input"], float(rate), mode is None or bool(mode)


@contextmanager
def inject(masks: Masks, module: nn.Module, case: Case, *, narrow: Set[str] = frozenset()) -> Iterator["Injected"]:
    """In this context, the original drops by `masks`, at its own rates.

    Args:
        masks: The masks.
        module: The original.
        case: The case for which it is built.
        narrow: The dropouts whose factor is computed in float32: `attention`, `others`.

    Yields:
        The Injected, which records those rates.

    Raises:
        NotOpened: The original has other dropouts than the masks are for.
    """
    attentions = find_attentions(module, case)
    if len(attentions) != len(masks.attention):
        raise NotOpened(f"the original has {len(attentions)} attentions, the candidate {len(masks.attention)}")
    with ExitStack() as stack:
        for attention in attentions:
            stack.enter_context(attention.watched())
        yield stack.enter_context(Injected(masks, attentions, narrow))


class Injected(TorchFunctionMode):
    """Drops by the masks in every dropout that is called.

    Attributes:
        attention_rates: The rate at which each attention layer drops probabilities; 0 if it does not.
        residual_rates: The rate at which each attention layer drops its output.
    """

    def __init__(self, masks: Masks, attentions: Sequence[Attention], narrow: Set[str] = frozenset()) -> None:
        super().__init__()
        self.masks, self.attentions, self.narrow = masks, attentions, narrow
        self.outside = iter(masks.outside)
        self.attention_rates = [0.0] * len(masks.attention)
        self.residual_rates = [0.0] * len(masks.residual)

    def __torch_function__(  # torch's protocol
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in _DROPOUTS:
            x, rate, drops = _dropout_call(func, args, kwargs)
            if not drops or rate == 0:
                return x if func is not torch.native_dropout else (x, torch.ones_like(x, dtype=torch.bool))
            which, keep_mask = self._keep_mask(x, rate)
            dropped = self._dropped(x, keep_mask, rate, which)
            return dropped if func is not torch.native_dropout else (dropped, keep_mask)
        if func is F.scaled_dot_product_attention:
            return self._fused(*args, **kwargs)
        return func(*args, **kwargs)

    def _keep_mask(self, x: Tensor, rate: float) -> tuple[str, Tensor]:
        """Which dropouts the one of this tensor belongs to, `attention` or `others`, and its mask."""
        for which, attention in enumerate(self.attentions):
            if not attention.inside:
                continue
            probabilities = self.masks.attention[which]
            scores = x.shape[-2:] == probabilities.shape[-2:] and x.numel() == probabilities.numel()
            residual = self.masks.residual[which] if self.masks.residual else None
            if residual is not None and x.shape == residual.shape and not (scores and x.dim() > 3):
                self.residual_rates[which] = rate
                return "others", residual
            if scores:
                self.attention_rates[which] = rate
                return "attention", probabilities.reshape(x.shape)
            raise NotOpened(f"the original drops a tensor of shape {tuple(x.shape)}, neither probabilities nor output")
        # a candidate without this dropout keeps everything: at the original's rate that is a difference
        keep_mask = next(self.outside, None)
        if keep_mask is None:
            return "others", torch.ones_like(x, dtype=torch.bool)
        if keep_mask.shape != x.shape:
            raise NotOpened(
                f"the dropouts outside of attention do not match: {tuple(keep_mask.shape)}, {tuple(x.shape)}"
            )
        return "others", keep_mask

    def _fused(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """A fused attention that the original itself calls, as separate operations with the mask."""
        if dropout_p == 0:
            options = {"enable_gqa": True} if enable_gqa else {}
            return F.scaled_dot_product_attention(
                q, k, v, attn_mask=attn_mask, dropout_p=0.0, is_causal=is_causal, scale=scale, **options
            )
        if enable_gqa:
            raise NotOpened("the original groups its heads")
        s = (q @ k.transpose(-2, -1)) * (q.shape[-1] ** -0.5 if scale is None else scale)  # (B, H, T, T)
        if is_causal:
            s = s.masked_fill(~torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).tril(), -math.inf)
        if attn_mask is not None:
            s = s.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype is torch.bool else s + attn_mask
        p = F.softmax(s, dim=-1)
        which, keep_mask = self._keep_mask(p, dropout_p)
        return self._dropped(p, keep_mask, dropout_p, which) @ v

    def _dropped(self, x: Tensor, keep_mask: Tensor, rate: float, which: str) -> Tensor:
        if rate == 1:
            scale = 0.0
        elif which in self.narrow:
            scale = float(torch.tensor(1.0) / torch.tensor(1.0 - rate))
        else:
            scale = 1.0 / (1.0 - rate)
        return x * (keep_mask.to(x.dtype) * scale)
