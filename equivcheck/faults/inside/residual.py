"""Faults of the dropout after the projection, and of the generator that both dropouts draw from."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.faults.base import inside
from equivcheck.faults.inside.decomposed import Parted
from equivcheck.report.levels import TRAINING, VALUES

__all__ = ["FAULTS"]


class ResidualDropoutMissing(Parted):
    """Nothing is dropped after the projection."""

    def out(self, y: Tensor) -> Tensor:
        return self.proj(self.merged(y))  # type: ignore[no-any-return]  # nn.Module calls are Any


class ResidualDropoutTwice(Parted):
    """The result is dropped twice after the projection."""

    def out(self, y: Tensor) -> Tensor:
        return self.resid_drop(super().out(y))  # type: ignore[no-any-return]  # nn.Module calls are Any


class ResidualDropoutBeforeTheProjection(Parted):
    """The result is dropped before the projection instead of after it."""

    def out(self, y: Tensor) -> Tensor:
        return self.proj(self.resid_drop(self.merged(y)))  # type: ignore[no-any-return]  # nn.Module calls are Any


class ResidualDropoutInEval(Parted):
    """The result is dropped in eval mode too."""

    def out(self, y: Tensor) -> Tensor:
        return F.dropout(self.proj(self.merged(y)), self.resid_drop.p, training=True)


class ResidualDropoutOfTheAttentionRate(Parted):
    """The result is dropped at the rate of `attn_drop`."""

    def out(self, y: Tensor) -> Tensor:
        return F.dropout(self.proj(self.merged(y)), self.attn_drop.p, training=self.resid_drop.training)


class RatesSwapped(Parted):
    """The constructor gives each dropout the rate of the other."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.attn_drop, self.resid_drop = nn.Dropout(config.resid_pdrop), nn.Dropout(config.attn_pdrop)


class AttentionRateIgnored(Parted):
    """The constructor gives `attn_drop` a rate of 0.1 for every config."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.attn_drop = nn.Dropout(0.1)


class GeneratorReseeded(Parted):
    """Each call in training mode seeds the global generators."""

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            torch.manual_seed(1234)
        return super().forward(x)


class GeneratorDrawnFromInEval(Parted):
    """A call in eval mode draws a random number and does not use it."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            torch.rand((), device=x.device)
        return super().forward(x)


FAULTS = (
    inside("dropout", ResidualDropoutMissing, seen_by=("dropout",)),
    inside("dropout", ResidualDropoutTwice, seen_by=("dropout",)),
    inside("dropout", ResidualDropoutBeforeTheProjection, seen_by=("dropout",)),
    inside("dropout", ResidualDropoutInEval, seen_by=("modes", "output", "dropout", "purity"), wrong_at=VALUES),
    inside("dropout", ResidualDropoutOfTheAttentionRate, seen_by=("dropout", "modes")),
    inside("dropout", RatesSwapped, seen_by=("interface", "dropout"), wrong_at=TRAINING),
    inside("dropout", AttentionRateIgnored, seen_by=("interface", "dropout", "modes"), wrong_at=TRAINING),
    inside("mode", GeneratorReseeded, seen_by=("dropout", "modes", "purity")),
    inside("mode", GeneratorDrawnFromInEval, seen_by=("purity", "modes"), wrong_at=TRAINING),
)
