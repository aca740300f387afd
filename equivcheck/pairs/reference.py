"""The original of a case: every instance has the same weights."""

from collections.abc import Callable, Hashable
from dataclasses import dataclass

import torch
from torch import nn

from equivcheck.pairs.cache import Memory
from equivcheck.pairs.weight_transfer import Weights

__all__ = ["Original"]

_SMALL_BYTES = 2**24  # of weights: copies of larger ones cost more than they save


@dataclass(frozen=True)
class Original:
    """Builds the original of a case, on the device that is judged or on a given one.

    The case's seed determines its weights. They are cached if they are small, so that a candidate gets them without
    another original.
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
        """The weights of an original that has not run, on the device that is judged; the caller may write to them."""
        known = self.memory.weights.known(self.key)
        return Weights.of(self()) if known is None else known.copied()
