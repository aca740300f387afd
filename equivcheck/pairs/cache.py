"""A cache, limited in bytes, of results that several candidates share: truths, and weights and masks of the original."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from equivcheck.numerics.truth import Truth
from equivcheck.pairs.visible import Visible
from equivcheck.pairs.weight_transfer import Weights

__all__ = ["Memory"]


class _Sized(Protocol):
    @property
    def size_bytes(self) -> int: ...


Value = TypeVar("Value", bound=_Sized)


class ByteLimitedLRU(Generic[Value]):
    """A cache that drops the least recently used values once a limit of bytes is exceeded."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self._values: OrderedDict[Hashable, Value] = OrderedDict()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def keep(self, key: Hashable, value: Value) -> Value:
        """Store a value under a new key, and drop the least recently used values above the limit.

        The sizes are taken anew each time: a value may have grown since it was stored.
        """
        self._values[key] = value
        sizes = [kept.size_bytes for kept in self._values.values()]
        used_bytes = sum(sizes)
        for size in sizes[:-1]:
            if used_bytes <= self.limit_bytes:
                break
            self._values.popitem(last=False)
            used_bytes -= size
        return value

    def known(self, key: Hashable) -> Value | None:
        """The value under `key`, or None."""
        if key in self._values:
            self._values.move_to_end(key)
        return self._values.get(key)


class Memory:
    """Results that several candidates share: truths to compare with, and weights and visible keys of the original."""

    def __init__(self, limit_bytes: int = 2**29) -> None:
        self.truths: ByteLimitedLRU[Truth] = ByteLimitedLRU(limit_bytes)
        self.weights: ByteLimitedLRU[Weights] = ByteLimitedLRU(limit_bytes // 8)
        self.visible: ByteLimitedLRU[Visible] = ByteLimitedLRU(limit_bytes // 16)
        self.subclasses: set[type] = set()  # subclasses of Tensor that the original returns

    def shared_by(self, processes: int) -> None:
        """Divide the limits by the number of processes that each have such a memory."""
        for cache in (self.truths, self.weights, self.visible):
            cache.limit_bytes //= processes

    def recall(self, key: Hashable, make: Callable[[], Truth]) -> Truth:
        """The truth under `key`; `make` computes it if there is none."""
        return self.truths.known(key) or self.truths.keep(key, make())
