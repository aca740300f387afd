"""Faults that depend on an earlier call, or change the state of the module or the process."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.faults.base import inside
from equivcheck.faults.inside.decomposed import Parted
from equivcheck.report.levels import DROP_IN, TRANSFORMS

__all__ = ["FAULTS"]

Heads = tuple[Tensor, Tensor, Tensor]  # q, k, v, each (B, nh, T, hs)


class StateKeptBetweenCalls(Parted):
    """A thousandth of the mean of the last result is added to the next."""

    last: Tensor | None = None

    def out(self, y: Tensor) -> Tensor:
        result = super().out(y)
        if self.last is not None:
            result = result + self.last.to(result) / 1000
        self.last = result.detach().mean()
        return result


class WrongFromTheSecondCall(Parted):
    """From the second call on the mixed values are 5 % too large."""

    calls = 0

    def mix(self, p: Tensor, v: Tensor) -> Tensor:
        self.calls += 1
        return super().mix(p, v) * (1.0 if self.calls == 1 else 1.05)


class KeysOfTheFirstInput(Parted):
    """The keys of the first input of a shape are used for all later ones."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.seen: dict[tuple[torch.Size, torch.dtype], Tensor] = {}

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        known = self.seen.setdefault((k.shape, k.dtype), k.detach())
        return q, k if torch.equal(known, k) else known, v


class LengthOfTheFirstCallKept(Parted):
    """Keys past the length of the first call are hidden in the mask buffer permanently."""

    def visible(self, s: Tensor) -> Tensor:
        self.mask[..., s.size(-1) :] = 0
        return super().visible(s)


class MaskCachedInInferenceMode(Parted):
    """The mask is cached at the first call of a length: from inference mode, it cannot be used in training later."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.masks: dict[tuple[int, torch.device], Tensor] = {}

    def masked(self, s: Tensor) -> Tensor:
        hidden = self.masks.setdefault((s.size(-1), s.device), self.visible(s) == 0)
        return s.masked_fill(hidden, self.fill)


class ScaleFoldedIntoTheWeight(Parted):
    """The first call writes the scale into the query's parameters: its result is right, its checkpoint is not."""

    folded = False

    @torch.no_grad()
    def fold(self, scale: float) -> None:
        for parameter in self.query.parameters():
            parameter.mul_(scale)
        self.folded = True

    def heads(self, x: Tensor) -> Heads:
        if not self.folded:
            self.fold((self.query.out_features // self.n_head) ** -0.5)
        return super().heads(x)

    def scale(self, q: Tensor) -> float:
        return 1.0


class WeightDrawnAtTheFirstCall(Parted):
    """The first call draws new weights for the value, after the checkpoint has been loaded."""

    fresh = True

    def heads(self, x: Tensor) -> Heads:
        if self.fresh:
            self.value.reset_parameters()
            self.fresh = False
        return super().heads(x)


class WeightCopiedAtTheFirstEval(Parted):
    """In eval mode without gradients the values come from a copy of the weight made at the first such call."""

    copied: tuple[Tensor, Tensor] | None = None

    def heads(self, x: Tensor) -> Heads:
        q, k, v = super().heads(x)
        if self.training or torch.is_grad_enabled():
            return q, k, v
        if self.copied is None:
            self.copied = (self.value.weight.clone(), self.value.bias.clone())
        value = F.linear(x, *(t.to(x) for t in self.copied))
        return q, k, value.view(v.transpose(1, 2).shape).transpose(1, 2)


class CopyCallsTheOriginal(Parted):
    """`forward` is bound to this module: a deep copy computes with the weights of the module that it copies."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.forward = lambda x: Parted.forward(self, x)  # type: ignore[method-assign]  # that is the fault


class ResultOverwrittenByTheNextCall(Parted):
    """Without gradients each result of a shape lies in the same memory as the one before."""

    memory: Tensor | None = None

    def out(self, y: Tensor) -> Tensor:
        result = super().out(y)
        if torch.is_grad_enabled():
            return result
        if self.memory is None or self.memory.shape != result.shape or self.memory.dtype != result.dtype:
            self.memory = torch.empty_like(result)
        return self.memory.copy_(result)


class InputModifiedInPlace(Parted):
    """The result is also added to the input, in place."""

    def forward(self, x: Tensor) -> Tensor:
        result = super().forward(x)
        x.data.add_(result.detach())
        return result


class SubmoduleFollowsTheModule(Parted):
    """Each call sets the mode of `attn_drop` and `resid_drop` to that of the attention."""

    def forward(self, x: Tensor) -> Tensor:
        self.attn_drop.train(self.training)
        self.resid_drop.train(self.training)
        return super().forward(x)


class GlobalFlagChanged(Parted):
    """Each call switches `torch.backends.cudnn.benchmark` on, in place of flags that change numbers."""

    def forward(self, x: Tensor) -> Tensor:
        torch.backends.cudnn.benchmark = True
        return super().forward(x)


FAULTS = (
    inside("state", StateKeptBetweenCalls, seen_by=("purity", "modes")),
    inside("state", WrongFromTheSecondCall, seen_by=("purity", "modes")),
    inside("state", KeysOfTheFirstInput, seen_by=("purity", "modes")),
    inside("state", LengthOfTheFirstCallKept, seen_by=("purity", "checkpoint", "modes")),
    inside("state", MaskCachedInInferenceMode, seen_by=("purity",), wrong_at=TRANSFORMS),
    inside("state", ScaleFoldedIntoTheWeight, seen_by=("purity", "checkpoint", "modes")),
    inside("state", WeightDrawnAtTheFirstCall, seen_by=("output", "purity")),
    inside("state", WeightCopiedAtTheFirstEval, seen_by=("modes", "interface")),
    inside("state", CopyCallsTheOriginal, seen_by=("modes",), wrong_at=DROP_IN),
    inside("state", ResultOverwrittenByTheNextCall, seen_by=("purity",)),
    inside("state", InputModifiedInPlace, seen_by=("purity",)),
    inside("state", SubmoduleFollowsTheModule, seen_by=("modes", "purity"), wrong_at=DROP_IN),
    inside("state", GlobalFlagChanged, seen_by=("purity",), wrong_at=DROP_IN),
)
