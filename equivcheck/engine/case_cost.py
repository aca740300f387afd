"""The bounds on the cost of a case that meets chosen classes: numbers of scores, of inputs and of weights."""

from dataclasses import dataclass

__all__ = ["Bounds", "bounds_of"]

_OF_AN_ATTENTION, _OF_A_LAYER = 4, 12  # weights are so many squares of the width


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """The most numbers that a case may have.

    Attributes:
        scores: B * H * T * S, times the layers of a model.
        inputs: B * max(T, S) * H * D.
        width: C = H * D of a module.
        weights: The numbers of its weights.
        products: B * T times the numbers of its weights.
    """

    scores: int
    inputs: int
    width: int
    weights: int
    products: int

    def allow(
        self, *, batch: int, heads: int, queries: int, keys: int, head_size: int, layers: int, has_weights: bool
    ) -> bool:
        """Whether a case is within the bounds.

        Args:
            batch: The number B of samples.
            heads: The number H of heads.
            queries: The number T of queries.
            keys: The number S of keys.
            head_size: The size D of a head.
            layers: The layers of a model; 0 for an attention alone.
            has_weights: Whether the case has weights: a function has none.
        """
        if batch * heads * queries * keys * max(layers, 1) > self.scores:
            return False
        if batch * max(queries, keys) * heads * head_size > self.inputs:
            return False
        width = heads * head_size if has_weights else 0
        weights = (_OF_A_LAYER * layers or _OF_AN_ATTENTION) * width**2
        return width <= self.width and weights <= self.weights and weights * batch * queries <= self.products


_GATE_ON_CPU = (
    Bounds(scores=2**14, inputs=2**15, width=800, weights=2**19, products=2**24),
    Bounds(scores=2**19, inputs=2**18, width=800, weights=2**23, products=2**26),
)
"""Within the second a gate on the CPU meets all but one pair in twenty (`tests/engine/test_covering.py`)."""
_LARGE = (
    Bounds(scores=2**15, inputs=2**16, width=800, weights=2**21, products=2**26),
    Bounds(scores=2**21, inputs=2**21, width=800, weights=2**25, products=2**31),
)
"""Within the second all but one pair in thirty are met; such cases are cheap on a GPU."""


def bounds_of(profile: str, device: str) -> tuple[Bounds, Bounds]:
    """The bounds of most cases of a run, and those of any case.

    Args:
        profile: The profile of the run.
        device: The type of the run's device.
    """
    return _GATE_ON_CPU if profile == "gate" and device == "cpu" else _LARGE
