"""The original of a case: made as often as it is asked for, always with the same weights."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import nn

from equivcheck.pairs.cache import Memory
from equivcheck.pairs.weight_transfer import Weights

__all__ = ["Original"]

_SMALL_BYTES = 2**24  # of weights: to copy what is larger, or to keep it beside its module, is not worth it


@dataclass(frozen=True)
class Original:
    """Makes the original of a case, on the device that is judged or on the one that it is told.

    It is made from the case's seed, so its weights are always the same: they are remembered, where they are small, and a
    candidate is given them without another original.
    """

    build: Callable[[torch.device | None], nn.Module]
    memory: Memory
    key: Hashable

    def __call__(self, device: torch.device | None = None) -> nn.Module:
        module = self.build(device)
        if device is None and self.key not in self.memory.weights:
            weights = Weights.of(module)
            if weights.plain and weights.size_bytes <= _SMALL_BYTES:
                self.memory.weights.keep(self.key, weights.copied())
        return module

    def weights(self) -> Weights:
        """Those of an original that nothing has run, on the device that is judged; who gets them may write to them."""
        known = self.memory.weights.known(self.key)
        return Weights.of(self()) if known is None else known.copied()
