"""The original of a case: every instance has the same weights."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import nn

from equivcheck.pairs.cache import Memory
from equivcheck.pairs.weight_transfer import Weights

__all__ = ["Original", "oracle_instead"]

_SMALL_BYTES = 2**24  # of weights: copies of larger ones cost more than they save
_oracle_instead: ContextVar[bool] = ContextVar("oracle_instead", default=False)


@contextmanager
def oracle_instead() -> Iterator[None]:
    """Inside, an `Original` builds the user's oracle with its weights, if there is one.

    A check that changes its originals, by hooks or by steps, changes the oracle in the same way: it calls an `Original`
    inside of the function that makes the changed one.
    """
    token = _oracle_instead.set(True)
    try:
        yield
    finally:
        _oracle_instead.reset(token)


@dataclass(frozen=True)
class Original:
    """Builds the original of a case, on the device that is judged or on a given one.

    The case's seed determines its weights. They are cached if they are small, so that a candidate gets them without
    another original.
    """

    build: Callable[[torch.device | None], nn.Module]
    memory: Memory
    key: Hashable
    build_oracle: Callable[[torch.device | None], nn.Module] | None = None

    def __call__(self, device: torch.device | None = None) -> nn.Module:
        if self.build_oracle is not None and _oracle_instead.get():
            return self.build_oracle(device)
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
