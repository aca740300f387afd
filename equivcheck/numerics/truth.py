"""The truth of a problem: the oracle's values, samples of how far rounding may move them, and a memory of what candidates share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from equivcheck.numerics.spread import Spread, spread_of

__all__ = ["Sample", "Truth"]


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
