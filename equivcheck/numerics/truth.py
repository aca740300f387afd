"""The truth of a problem: the oracle's values, samples of how far rounding may move them, and a memory of what candidates share."""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from torch import Tensor

from equivcheck.numerics.spread import Spread, spread_of
from equivcheck.pairs.weight_transfer import Weights

__all__ = ["Memory", "Sample", "Truth"]


@dataclass(frozen=True)
class Sample:
    """What `count` perturbed runs gave: per tensor their deviations from the truth, stacked as (count, *shape)."""

    count: int
    deviations: Mapping[str, Tensor]
    _spreads: dict[str, Spread] = field(default_factory=dict)

    def spread(self, name: str) -> Spread:
        """How far rounding moves this tensor: worked out once, for all that is held against it."""
        if name not in self._spreads:
            self._spreads[name] = spread_of(self.deviations[name])
        return self._spreads[name]


@dataclass
class Truth:
    """The oracle's results for one problem, and how far rounding may move them.

    `perturbed` makes a sample of so many runs; `first` of them are enough to pass on, and `many` to accuse on. A `coarse`
    original rounds to a narrower dtype than the case's by its own code. `may_overflow` says whether numbers on the way are
    beyond the dtype. `reference_ratios` has the original's own error over its budget, by tensor, where it was asked.
    """

    values: dict[str, Tensor]
    perturbed: Callable[[int], Sample]
    first: int = 4
    many: int = 32
    coarse: bool = False
    may_overflow: Callable[[], bool] = lambda: False
    reference_ratios: dict[str, float] | None = None
    _overflows: list[bool] = field(default_factory=list)
    _samples: dict[int, Sample] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """What it holds once the first sample is taken."""
        return (3 + self.first) * sum(value.nbytes for value in self.values.values())

    @property
    def overflows(self) -> bool:
        """Whether numbers on the way are beyond the dtype, so that results of right implementations may not be finite."""
        if not self._overflows:
            self._overflows.append(self.may_overflow())
        return self._overflows[0]

    def sample(self, *, refined: bool) -> Sample:
        """Few perturbed runs, enough to pass on; or, `refined`, many more, enough to accuse on."""
        count = self.many if refined else self.first
        if count not in self._samples:
            self._samples[count] = self.perturbed(count)
        return self._samples[count]


class _Sized(Protocol):
    @property
    def size_bytes(self) -> int: ...


Kept = TypeVar("Kept", bound=_Sized)


class Latest(Generic[Kept]):
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
        self.truths: Latest[Truth] = Latest(limit_bytes)
        self.weights: Latest[Weights] = Latest(limit_bytes // 8)
        self.subclasses: set[type] = set()  # of Tensor, that the original returns

    def shared_by(self, processes: int) -> None:
        """Take no more than the share of one of several processes that each have such a memory."""
        for kept in (self.truths, self.weights):
            kept.limit_bytes //= processes

    def recall(self, key: Hashable, make: Callable[[], Truth]) -> Truth:
        """The truth kept under `key`, or the one that `make` gives."""
        return self.truths.known(key) or self.truths.keep(key, make())
