"""Dropout masks: read off a candidate, whatever its kernel, and put into the original, so that random results compare exactly.

Under one generator state and for one shape of q and k, what a kernel drops does not depend on their values. With q = k = 0
every visible probability is the same, and with one-hot columns as V the output *is* the dropped probabilities of those keys:
ceil(T / D) runs from the same generator state show the whole mask. The original in float64, with that mask in the place of
its own, is then the oracle of outputs and of all gradients: a backward pass with another mask shows as an error.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from equivcheck.cases.case import Case
from equivcheck.checks.dropout.attention_layers import Attention, find_attentions, one_hot
from equivcheck.errors import NotOpened

__all__ = ["Injected", "Masks", "NotOpened", "Recovery", "inject", "visible_keys"]

_DROPOUTS = (F.dropout, torch.dropout, torch.native_dropout)
_UNIFORM = 2.0**-6  # of 1 / (number of visible keys): far above rounding in any dtype, far below one key more or less


@dataclass(frozen=True, eq=False)
class Masks:
    """What was kept: of the probabilities and of the output of each attention, and of every dropout outside of them."""

    attention: tuple[Tensor, ...]  # (B, H, T, T) each, bool
    residual: tuple[Tensor, ...]  # (B, T, C) each, bool; none for functions
    outside: tuple[Tensor, ...]  # in the order of the calls, bool

    def to(self, device: torch.device) -> "Masks":
        """The same masks on another device."""
        return Masks(*(tuple(kept.to(device) for kept in of) for of in (self.attention, self.residual, self.outside)))

    def same(self, other: "Masks") -> bool:
        """Whether both keep the very same places."""
        mine, its = ((m.attention, m.residual, m.outside) for m in (self, other))
        return all(
            len(a) == len(b) and all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
            for a, b in zip(mine, its, strict=True)
        )


def visible_keys(case: Case, length: int, device: torch.device) -> Tensor:
    """Which keys each query sees, (T, T)."""
    visible = torch.ones(length, length, dtype=torch.bool, device=device)
    return visible.tril() if case.is_causal else visible


@dataclass
class Recovery:
    """Reads masks off a module: `run` calls it once on inputs like the given ones, from the same generator state each time.

    Raises NotOpened where the inside does not look as it must: then nothing is claimed of the masks.
    """

    case: Case
    module: nn.Module
    inputs: Sequence[Tensor]
    run: Callable[[Sequence[Tensor]], Mapping[str, Tensor]]

    def masks(self, length: int) -> Masks:
        """The masks of one forward pass over T = `length` positions."""
        found = [self._read(first, length) for first in range(0, length, self.case.head_size)]
        weights = zip(*(weights for weights, _, _ in found), strict=True)  # of each attention, its parts
        _, left, outside = found[-1]
        return Masks(tuple(torch.cat(parts, -1)[..., :length] != 0 for parts in weights), left, outside)

    def must_open(self, length: int) -> None:
        """In a mode without dropout what is read off must be uniform attention; raises NotOpened where it is not."""
        weights, left, _ = self._read(0, length)
        seen = visible_keys(self.case, length, weights[0].device).double()
        uniform = (seen / seen.sum(-1, keepdim=True))[:, : self.case.head_size]
        for parts in weights:
            found = parts[..., : uniform.shape[-1]].double()
            if not bool(((found - uniform).abs() <= _UNIFORM * uniform).all()):
                raise NotOpened("with equal scores its probabilities are not equal")
        if not all(bool(kept.all()) for kept in left):
            raise NotOpened("what leaves its last linear is not what it returns")

    def _read(self, first: int, length: int) -> tuple[list[Tensor], tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Probabilities of the keys from `first` on, what is left of the outputs, and of what passes the other dropouts."""
        attentions = find_attentions(self.module, self.case)
        if not attentions[0].linears:
            return [self._of_function(first, length)], (), ()
        with ExitStack() as stack:
            taken = [stack.enter_context(attention.read(first, length)) for attention in attentions]
            recording = stack.enter_context(_Recording(attentions))
            self.run(self.inputs)
        if any({"weights", "left"} - set(t) for t in taken):
            raise NotOpened("its linears are not called as modules")
        return [t["weights"] for t in taken], tuple(t["left"] != 0 for t in taken), tuple(recording.kept)

    def _of_function(self, first: int, length: int) -> Tensor:
        q, k, v = self.inputs
        hot = one_hot(first, length, v.shape[-1], like=v).expand(v.shape)  # (B, H, T, D)
        found = self.run([torch.zeros_like(q), torch.zeros_like(k), hot.clone(memory_format=torch.contiguous_format)])
        return found["output"].detach()


class _Recording(TorchFunctionMode):
    """Records what the dropouts outside of every attention keep: each is run on ones, which changes no generator state."""

    def __init__(self, attentions: Sequence[Attention]) -> None:
        super().__init__()
        self.attentions = attentions
        self.kept: list[Tensor] = []

    def __torch_function__(  # torch's protocol
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func is F.dropout and not any(a.inside for a in self.attentions):
            x, rate, training = _dropout_call(func, args, kwargs)
            if training and rate > 0:
                kept = F.dropout(torch.ones_like(x), rate, True)
                self.kept.append(kept.detach() != 0)
                return x * kept
        return func(*args, **kwargs)


def _dropout_call(func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Tensor, float, bool]:
    """Input, rate and whether it drops, of a call of one of `_DROPOUTS`."""
    rate_name, mode_name = ("p", "train") if func is not F.dropout else ("p", "training")
    given = dict(zip(("input", rate_name, mode_name), args, strict=False)) | dict(kwargs)
    rate, mode = given.get(rate_name, 0.5), given.get(mode_name, True)
    return given["input"], float(rate), mode is None or bool(mode)


@contextmanager
def inject(masks: Masks, module: nn.Module, case: Case) -> Iterator["Injected"]:
    """Inside, the original drops what `masks` say, at its own rates; raises NotOpened where it drops anything else.

    Gives what remembers those rates.
    """
    attentions = find_attentions(module, case)
    if len(attentions) != len(masks.attention):
        raise NotOpened(f"the original has {len(attentions)} attentions, the candidate {len(masks.attention)}")
    with ExitStack() as stack:
        for attention in attentions:
            stack.enter_context(attention.watched())
        yield stack.enter_context(Injected(masks, attentions))


class Injected(TorchFunctionMode):
    """Drops what the masks say wherever a dropout is asked for; each run starts over with the dropouts outside of attention."""

    def __init__(self, masks: Masks, attentions: Sequence[Attention]) -> None:
        super().__init__()
        self.masks, self.attentions = masks, attentions
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
            kept = self._kept(x, rate)
            dropped = _dropped(x, kept, rate)
            return dropped if func is not torch.native_dropout else (dropped, kept)
        if func is F.scaled_dot_product_attention:
            return self._fused(*args, **kwargs)
        return func(*args, **kwargs)

    def _kept(self, x: Tensor, rate: float) -> Tensor:
        for which, attention in enumerate(self.attentions):
            if not attention.inside:
                continue
            probabilities = self.masks.attention[which]
            scores = x.shape[-2:] == probabilities.shape[-2:] and x.numel() == probabilities.numel()
            residual = self.masks.residual[which] if self.masks.residual else None
            if residual is not None and x.shape == residual.shape and not (scores and x.dim() > 3):
                self.residual_rates[which] = rate
                return residual
            if scores:
                self.attention_rates[which] = rate
                return probabilities.reshape(x.shape)
            raise NotOpened(f"the original drops a tensor of shape {tuple(x.shape)}, neither probabilities nor output")
        # a candidate without this dropout kept everything: at the original's rate that is a difference
        kept = next(self.outside, None)
        if kept is None:
            return torch.ones_like(x, dtype=torch.bool)
        if kept.shape != x.shape:
            raise NotOpened(f"the dropouts outside of attention do not match: {tuple(kept.shape)}, {tuple(x.shape)}")
        return kept

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
        """A fused attention that the original itself calls, spelled out with the mask."""
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
        return _dropped(p, self._kept(p, dropout_p), dropout_p) @ v


def _dropped(x: Tensor, kept: Tensor, rate: float) -> Tensor:
    scale = 1.0 / (1.0 - rate) if rate < 1 else 0.0
    return x * (kept.to(x.dtype) * scale)
