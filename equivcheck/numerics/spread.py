"""The spread of a tensor under rounding, estimated from perturbed runs of the original."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Spread", "spread_of"]

_PRIOR = 4  # the estimate of an element's variance includes its row's, weighted as this many samples


@dataclass(frozen=True)
class Spread:
    """Estimated standard deviations of rounding error, divided by `reach`, the greatest deviation.

    They are per element, per row of the last dimension, and for the whole tensor.
    """

    count: int
    farthest: Tensor  # (*shape), the greatest deviation of each element
    reach: float
    elements: Tensor  # (rows, width), of each element
    rows: Tensor  # (rows,), of the norm of each row
    whole: float  # of the norm of the whole tensor
    effective: float  # degrees of freedom of that norm: its number of independent errors

    @property
    def dof(self) -> float:
        """Degrees of freedom of a row's estimate."""
        return float(self.count)

    @property
    def dof_of_elements(self) -> float:
        """Degrees of freedom of an element's estimate: its row's other elements add theirs, up to the prior."""
        return float(self.count + min(_PRIOR, self.count * (self.elements.shape[-1] - 1)))


def spread_of(deviations: Tensor) -> Spread:
    """The spread of the deviations of perturbed runs, (count, *shape)."""
    count = deviations.shape[0]
    farthest = deviations.abs().amax(0)
    reach = float(farthest.max())
    width = farthest.shape[-1] if farthest.dim() else 1
    # (count, rows, width); divided first, so that squares are finite
    d = (deviations / reach if reach else deviations).reshape(count, -1, width)
    by_element = d.square().mean(0)  # (rows, width)
    by_row = by_element.mean(-1, keepdim=True)  # (rows, 1)
    pooled = by_element.lerp(by_row, _PRIOR / (count + _PRIOR))
    flat = d.reshape(count, -1)
    gram = flat @ flat.T  # (count, count)
    total = float(gram.diagonal().mean())
    # tr(S²) is the mean square of products of two different samples
    trace_square = float(gram.fill_diagonal_(0.0).square_().sum()) / max(1, count * (count - 1))
    effective = min(float(farthest.numel()), total * total / trace_square) if count > 1 and trace_square > 0 else 1.0
    rows = by_row.squeeze(-1).mul(width).sqrt()
    return Spread(count, farthest, reach, pooled.sqrt(), rows, total**0.5, effective)
