"""The truth of a problem: the oracle's values, and samples of their rounding errors, which all candidates share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from equivcheck.numerics.spread import Spread, spread_of

__all__ = ["Sample", "Truth"]


@dataclass(frozen=True)
class Sample:
    """The deviations of `count` perturbed runs from the truth, by tensor, stacked as (count, *shape)."""

    count: int
    deviations: Mapping[str, Tensor]
    _spreads: dict[str, Spread] = field(default_factory=dict)

    def spread(self, name: str) -> Spread:
        """The spread of this tensor under rounding, computed once for all comparisons."""
        if name not in self._spreads:
            self._spreads[name] = spread_of(self.deviations[name])
        return self._spreads[name]


@dataclass
class Truth:
    """The oracle's results for one problem, and samples of how far rounding may move them.

    Attributes:
        values: The results, by tensor.
        perturbed: Makes a sample of this many perturbed runs.
        first: The number of runs that is enough for a pass.
        many: The number of runs that is enough for a failure.
        narrower: The same values with the rounding of the narrowest dtype that the original's code asks for; None if
            that is the case's dtype. It counts where the original itself shows such rounding.
        rounds_to: The name of that dtype, in such a truth.
        may_overflow: Whether intermediate numbers exceed the dtype.
        reference_ratios: The original's error over its budget, by tensor; None if it was not computed.
    """

    values: dict[str, Tensor]
    perturbed: Callable[[int], Sample]
    first: int = 4
    many: int = 32
    narrower: "Truth | None" = None
    rounds_to: str = ""
    may_overflow: Callable[[], bool] = lambda: False
    reference_ratios: dict[str, float] | None = None
    _overflows: list[bool] = field(default_factory=list)
    _samples: dict[int, Sample] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Its memory: once the first sample is taken, and more where a refined one was."""
        runs = max(self.first, sum(self._samples))
        narrower = 0 if self.narrower is None else self.narrower.size_bytes
        return (3 + runs) * sum(value.nbytes for value in self.values.values()) + narrower

    @property
    def overflows(self) -> bool:
        """Whether intermediate numbers exceed the dtype, so that right implementations may have results not finite."""
        if not self._overflows:
            self._overflows.append(self.may_overflow())
        return self._overflows[0]

    def undefined(self, name: str) -> Tensor | None:
        """The elements of a gradient that has no meaning: it comes through a result that is not finite.

        A query that sees no key has such a result. Right implementations have 0 or NaN as the gradient through it, by
        the way in which they hide a key. The other samples of the batch have their gradients.

        Args:
            name: The name of a tensor.

        Returns:
            A mask that broadcasts to the tensor, True for such elements; None if there are none.
        """
        if not name.startswith("grad "):
            return None
        for result, value in self.values.items():
            if result.startswith("grad ") or not value.dim():
                continue
            samples = ~value.isfinite().flatten(1).all(1)  # (B,)
            if bool(samples.any()):
                gradient = self.values[name]
                if gradient.dim() and gradient.size(0) == samples.numel():
                    return samples.view(-1, *[1] * (gradient.dim() - 1))  # (B, 1, ...)
                return samples.any()  # of a parameter, or of a mask for all samples
        return None

    def sample(self, *, refined: bool) -> Sample:
        """A sample of few perturbed runs, enough for a pass; or, if `refined`, of many, enough for a failure."""
        count = self.many if refined else self.first
        if count not in self._samples:
            self._samples[count] = self.perturbed(count)
        return self._samples[count]
