"""Faults of checkpoints: their keys, the order of these, shapes and dtypes."""

from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.faults.base import inside
from equivcheck.faults.inside.decomposed import Parted
from equivcheck.report.levels import VALUES

__all__ = ["FAULTS"]


class QueryKeyValueFused(Parted):
    """One projection `qkv` instead of three: old checkpoints do not load."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd)
        del self.query, self.key, self.value

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, self.n_head, C // self.n_head).permute(2, 0, 3, 1, 4)
        return q, k, v


class ProjectionRenamed(Parted):
    """The projection is called `c_proj`."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.c_proj = self.proj
        del self.proj

    def out(self, y: Tensor) -> Tensor:
        return self.resid_drop(self.c_proj(self.merged(y)))  # type: ignore[no-any-return]  # nn.Module calls are Any


class ParameterAdded(Parted):
    """There is one parameter more than in the original: a gain, which starts at 1."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.gain = nn.Parameter(torch.ones(()))

    def mix(self, p: Tensor, v: Tensor) -> Tensor:
        return super().mix(p, v) * self.gain


class MaskNotPersistent(Parted):
    """The mask is not saved: old checkpoints have an unexpected key."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.register_buffer("mask", self.mask, persistent=False)


class MaskOfBooleans(Parted):
    """The mask is saved as booleans."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.mask = self.mask.bool()


class MaskOfTwoDimensions(Parted):
    """The mask is saved as (block_size, block_size)."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.mask = self.mask[0, 0]

    def visible(self, s: Tensor) -> Tensor:
        return self.mask[: s.size(-2), : s.size(-1)]


class MaskTwiceTooLarge(Parted):
    """The mask is made for twice `block_size`: old checkpoints do not fit, and longer sequences run."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        size = 2 * config.block_size
        self.mask = torch.ones(1, 1, size, size).tril()


class ValueWithoutBias(Parted):
    """The value has no bias."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.value = nn.Linear(config.n_embd, config.n_embd, bias=False)


class KeysInAnotherOrder(Parted):
    """The projections are registered in another order: the saved state of an optimizer relies on the order."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        key = self.key
        del self.key
        self.key = key


FAULTS = (
    inside("interface", QueryKeyValueFused, seen_by=("checkpoint", "interface")),
    inside("interface", ProjectionRenamed, seen_by=("checkpoint", "interface")),
    inside("interface", ParameterAdded, seen_by=("checkpoint",)),
    inside("interface", MaskNotPersistent, seen_by=("checkpoint",)),
    inside("interface", MaskOfBooleans, seen_by=("checkpoint",)),
    inside("interface", MaskOfTwoDimensions, seen_by=("checkpoint",)),
    inside("interface", MaskTwiceTooLarge, seen_by=("checkpoint", "errors")),
    inside("interface", ValueWithoutBias, seen_by=("checkpoint", "output"), wrong_at=VALUES),
    inside("interface", KeysInAnotherOrder, seen_by=("checkpoint",)),
)
