"""Faults of the dropout of the probabilities: when, at which rate, under which mask."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.faults.base import inside
from equivcheck.faults.inside.decomposed import Parted
from equivcheck.report.levels import DROP_IN, VALUES

__all__ = ["FAULTS", "MaskedDropout"]


def drawn(p: Tensor, shape: tuple[int, ...], rate: float, generator: torch.Generator | None = None) -> Tensor:
    """A random mask for `p`, which broadcasts from `shape`, divided by the share that is kept."""
    keep = torch.rand(shape, device=p.device, generator=generator) >= rate
    return keep.to(p.dtype) / (1.0 - rate) if rate < 1.0 else torch.zeros_like(p)


class MaskedDropout(Parted):
    """Dropout by an explicit mask, right unless `keep_mask` is overridden."""

    def dropped(self, p: Tensor) -> Tensor:
        if not self.attn_drop.training or self.attn_drop.p == 0.0:
            return p
        return p * self.keep_mask(p, self.attn_drop.p)

    def keep_mask(self, p: Tensor, rate: float) -> Tensor:
        return drawn(p, p.shape, rate)


class DropoutNever(Parted):
    """The probabilities are never dropped."""

    def dropped(self, p: Tensor) -> Tensor:
        return p


class DropoutInEval(Parted):
    """The probabilities are dropped in eval mode too."""

    def dropped(self, p: Tensor) -> Tensor:
        return F.dropout(p, self.attn_drop.p, training=True)


class DropoutOffAfterEval(Parted):
    """One call in eval mode switches the dropout off permanently."""

    over = False

    def dropped(self, p: Tensor) -> Tensor:
        self.over = self.over or not self.attn_drop.training
        return p if self.over else super().dropped(p)


class DropoutModeOfTheFirstCall(Parted):
    """The mode of the first call decides for all calls whether anything is dropped."""

    mode: bool | None = None

    def dropped(self, p: Tensor) -> Tensor:
        self.mode = self.attn_drop.training if self.mode is None else self.mode
        return F.dropout(p, self.attn_drop.p, training=self.mode)


class DropoutModeOfTheModule(Parted):
    """The mode of the attention decides, instead of that of `attn_drop`, which can be set separately."""

    def dropped(self, p: Tensor) -> Tensor:
        return F.dropout(p, self.attn_drop.p, training=self.training)


class DropoutRateFixedAtConstruction(Parted):
    """The rate stays that of the config, even if `attn_drop.p` changes."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.rate = config.attn_pdrop

    def dropped(self, p: Tensor) -> Tensor:
        return F.dropout(p, self.rate, training=self.attn_drop.training)


class DropoutRateOfTheResidual(Parted):
    """The probabilities are dropped at the rate of `resid_drop`."""

    def dropped(self, p: Tensor) -> Tensor:
        return F.dropout(p, self.resid_drop.p, training=self.attn_drop.training)


class DropoutRateATenthLower(Parted):
    """The probabilities are dropped at 0.9 of the rate, and scaled to match."""

    def dropped(self, p: Tensor) -> Tensor:
        return F.dropout(p, 0.9 * self.attn_drop.p, training=self.attn_drop.training)


class DropoutUnscaled(MaskedDropout):
    """The kept entries are not divided by 1 - p."""

    def keep_mask(self, p: Tensor, rate: float) -> Tensor:
        return super().keep_mask(p, rate) * (1.0 - rate)


class DropoutKeepsPairs(MaskedDropout):
    """An entry is kept when either of two draws keeps it: the share that is dropped is p squared."""

    def keep_mask(self, p: Tensor, rate: float) -> Tensor:
        return torch.maximum(super().keep_mask(p, rate), super().keep_mask(p, rate))


class DropoutOfOneIsNan(MaskedDropout):
    """At a rate of exactly 1 the result is NaN, from 0 / 0."""

    def keep_mask(self, p: Tensor, rate: float) -> Tensor:
        return torch.full_like(p, torch.nan) if rate == 1.0 else super().keep_mask(p, rate)


class DropoutMaskSharedOverHeads(MaskedDropout):
    """All heads of a sample share one mask."""

    def keep_mask(self, p: Tensor, rate: float) -> Tensor:
        return drawn(p, (p.size(0), 1, p.size(2), p.size(3)), rate)


class DropoutMaskSharedOverBatch(MaskedDropout):
    """All samples share one mask."""

    def keep_mask(self, p: Tensor, rate: float) -> Tensor:
        return drawn(p, (1, p.size(1), p.size(2), p.size(3)), rate)


class DropoutMaskSharedOverQueries(MaskedDropout):
    """All queries drop the same keys."""

    def keep_mask(self, p: Tensor, rate: float) -> Tensor:
        return drawn(p, (p.size(0), p.size(1), 1, p.size(3)), rate)


class DropoutMaskSharedOverKeys(MaskedDropout):
    """A query drops all of its keys or none."""

    def keep_mask(self, p: Tensor, rate: float) -> Tensor:
        return drawn(p, (p.size(0), p.size(1), p.size(2), 1), rate)


class DropoutNeverOnTheDiagonal(MaskedDropout):
    """The diagonal is never dropped; all other entries are dropped as they should be."""

    def keep_mask(self, p: Tensor, rate: float) -> Tensor:
        diagonal = torch.eye(p.size(-1), dtype=torch.bool, device=p.device)
        return super().keep_mask(p, rate).masked_fill(diagonal, 1.0)


class DropoutTheSameEveryCall(MaskedDropout):
    """Each call seeds a separate generator with the same seed: the mask never changes."""

    def keep_mask(self, p: Tensor, rate: float) -> Tensor:
        return drawn(p, p.shape, rate, torch.Generator(p.device).manual_seed(1234))


class DropoutBeforeTheSoftmax(Parted):
    """The scores are dropped instead of the probabilities: a dropped key counts with score 0."""

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        return super().dropped(super().scores(q, k))

    def dropped(self, p: Tensor) -> Tensor:
        return p


class DropoutOnTheOutput(Parted):
    """The mixed values are dropped instead of the probabilities."""

    def dropped(self, p: Tensor) -> Tensor:
        return p

    def mix(self, p: Tensor, v: Tensor) -> Tensor:
        return super().dropped(super().mix(p, v))


class DropoutRenormalised(MaskedDropout):
    """The kept entries are scaled to sum to one, instead of by 1/(1 - p)."""

    def dropped(self, p: Tensor) -> Tensor:
        d = super().dropped(p)
        return d if d is p else d / d.sum(-1, keepdim=True).clamp(min=torch.finfo(p.dtype).tiny)


FAULTS = (
    inside("dropout", DropoutNever, seen_by=("dropout",)),
    inside("dropout", DropoutInEval, seen_by=("modes", "output", "dropout", "purity"), wrong_at=VALUES),
    inside("dropout", DropoutOffAfterEval, seen_by=("modes", "dropout")),
    inside("dropout", DropoutModeOfTheFirstCall, seen_by=("modes", "dropout")),
    inside("dropout", DropoutModeOfTheModule, seen_by=("modes",), wrong_at=DROP_IN),
    inside("dropout", DropoutRateFixedAtConstruction, seen_by=("modes",), wrong_at=DROP_IN),
    inside("dropout", DropoutRateOfTheResidual, seen_by=("dropout", "modes")),
    inside("dropout", DropoutRateATenthLower, seen_by=("dropout",)),
    inside("dropout", DropoutUnscaled, seen_by=("dropout",)),
    inside("dropout", DropoutKeepsPairs, seen_by=("dropout",)),
    inside("dropout", DropoutOfOneIsNan, seen_by=("limits",)),
    inside("dropout", DropoutMaskSharedOverHeads, seen_by=("dropout",)),
    inside("dropout", DropoutMaskSharedOverBatch, seen_by=("dropout",)),
    inside("dropout", DropoutMaskSharedOverQueries, seen_by=("dropout",)),
    inside("dropout", DropoutMaskSharedOverKeys, seen_by=("dropout",)),
    inside("dropout", DropoutNeverOnTheDiagonal, seen_by=("dropout",)),
    inside("dropout", DropoutTheSameEveryCall, seen_by=("dropout", "modes")),
    inside("dropout", DropoutBeforeTheSoftmax, seen_by=("dropout",)),
    inside("dropout", DropoutOnTheOutput, seen_by=("dropout",)),
    inside("dropout", DropoutRenormalised, seen_by=("dropout",)),
)
