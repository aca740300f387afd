"""What several candidates have in common, kept up to a limit of bytes: truths, and the weights of the original."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from equivcheck.numerics.truth import Truth
from equivcheck.pairs.weight_transfer import Weights

__all__ = ["Memory"]


class _Sized(Protocol):
    @property
    def size_bytes(self) -> int: ...


Kept = TypeVar("Kept", bound=_Sized)


class ByteLimitedLRU(Generic[Kept]):
    """What was used last, up to a limit of bytes."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes, self.used_bytes = limit_bytes, 0
        self._kept: OrderedDict[Hashable, Kept] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._kept

    def keep(self, key: Hashable, value: Kept) -> Kept:
        """Keep a value of which nothing is kept yet, and let go of those that were not used for longest."""
        self._kept[key] = value
        self.used_bytes += value.size_bytes
        while self.used_bytes > self.limit_bytes and len(self._kept) > 1:
            _, dropped = self._kept.popitem(last=False)
            self.used_bytes -= dropped.size_bytes
        return value

    def known(self, key: Hashable) -> Kept | None:
        """The value that is kept under `key`, if one is."""
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)


class Memory:
    """What several candidates have in common: the truths that they are held against, and the weights that they are given."""

    def __init__(self, limit_bytes: int = 2**29) -> None:
        self.truths: ByteLimitedLRU[Truth] = ByteLimitedLRU(limit_bytes)
        self.weights: ByteLimitedLRU[Weights] = ByteLimitedLRU(limit_bytes // 8)
        self.subclasses: set[type] = set()  # of Tensor, that the original returns

    def shared_by(self, processes: int) -> None:
        """Take no more than the share of one of several processes that each have such a memory."""
        for kept in (self.truths, self.weights):
            kept.limit_bytes //= processes

    def recall(self, key: Hashable, make: Callable[[], Truth]) -> Truth:
        """The truth kept under `key`, or the one that `make` gives."""
        return self.truths.known(key) or self.truths.keep(key, make())
