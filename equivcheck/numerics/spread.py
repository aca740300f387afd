"""How far rounding moves a tensor: what perturbed runs of the original tell of it, worked out once."""

from dataclasses import dataclass

from torch import Tensor

__all__ = ["Spread", "spread_of"]

_PRIOR = 4  # an element's spread is estimated together with this many samples' worth of its row's


@dataclass(frozen=True)
class Spread:
    """Standard deviations in units of `reach`, the greatest deviation of all; rows are those of the last dimension."""

    count: int
    farthest: Tensor  # (*shape), the greatest deviation of each element
    reach: float
    elements: Tensor  # (rows, width), of each element
    rows: Tensor  # (rows,), of each row's norm
    whole: float  # of the norm of the whole tensor
    effective: float  # degrees of freedom of that norm: how many independent errors it is made of

    @property
    def dof(self) -> float:
        """Degrees of freedom of a row's estimate."""
        return float(self.count)

    @property
    def dof_of_elements(self) -> float:
        """Degrees of freedom of an element's estimate: its row adds what it knows from other elements, and no more."""
        return float(self.count + min(_PRIOR, self.count * (self.elements.shape[-1] - 1)))


def spread_of(deviations: Tensor) -> Spread:
    """The spread of perturbed runs' deviations, (count, *shape)."""
    count = deviations.shape[0]
    farthest = deviations.abs().amax(0)
    reach = float(farthest.max())
    width = farthest.shape[-1] if farthest.dim() else 1
    d = (deviations / reach if reach else deviations).reshape(
        count, -1, width
    )  # (count, rows, width); squares are numbers
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
