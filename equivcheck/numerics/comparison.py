"""A candidate's tensor against the oracle's within its budget, by element, by row and as a whole."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from equivcheck.numerics.quantiles import norm_quantile, student_quantile
from equivcheck.numerics.spread import Spread, spread_of

__all__ = ["FALSE_ALARM", "Comparison", "compare"]

FALSE_ALARM = 1e-9
"""The chance, under the model of the budget, that one comparison of two right tensors fails."""

LEVELS = ("element", "row", "tensor")
_VANISHES = (
    1e-150  # of the tensor's greatest: the squares of smaller deviations are zero in float64, and so is their budget
)


@dataclass(frozen=True)
class Comparison:
    """One tensor held against the oracle; `ratio` up to 1 passes, at the worst of three levels: element, row and tensor.

    `error` and `allowed` are those of that level, of one element or norms of a row or the tensor: `ratio` is their quotient.
    """

    name: str
    shape: tuple[int, ...]
    ratio: float
    level: str = "element"
    problem: str = ""  # shape, dtype, device, finiteness: then no values were compared
    index: tuple[int, ...] = ()
    candidate: float = math.nan
    oracle: float = math.nan
    error: float = 0.0
    allowed: float = 0.0
    over: int = 0
    row: tuple[int, ...] = ()
    rows_over: int = 0
    reference_ratio: float = 0.0
    unjudged: int = 0  # elements left out because the original itself is not finite there
    finite: bool = True  # False where the problem is that some elements are not finite

    @property
    def passes(self) -> bool:
        """Whether rounding explains the difference."""
        return not self.problem and self.ratio <= 1.0


def compare(
    name: str,
    candidate: Tensor | None,
    truth: Tensor,
    deviations: Tensor,
    *,
    dtype: torch.dtype,
    reference: Tensor | None,
    certain: bool,
    device: torch.device | None = None,
    spread: Spread | None = None,
    values: Tensor | None = None,
    overflows: bool = False,
) -> Comparison:
    """Hold a candidate's tensor against the oracle's `truth`, with `deviations` (count, *shape) as what rounding does.

    `certain` widens the budget by what the number of the deviations leaves open about their spread: then a failure is final.
    Without it the spread is taken at its word, and only a pass is.
    Looks at shape, dtype, device and finiteness first, then at values. `device` is where the candidate's must be, where that
    is not where the oracle's is. `spread` is that of the deviations, where it is known; `values` are the candidate's, brought
    to the oracle's device, where they are there already. Where a right implementation `overflows` on the way, elements that are
    not finite are left out.
    """
    shape = tuple(truth.shape)
    if candidate is None:
        if not bool(truth.any()) and not bool(deviations.any()):
            return Comparison(name, shape, 0.0)
        return Comparison(name, shape, math.inf, problem="there is none, and the original has one")
    if tuple(candidate.shape) != shape:
        return Comparison(name, shape, math.inf, problem=f"shape {tuple(candidate.shape)} instead of {shape}")
    if candidate.dtype != dtype:
        return Comparison(name, shape, math.inf, problem=f"dtype {candidate.dtype} instead of {dtype}")
    if candidate.device != (device or truth.device):
        return Comparison(
            name, shape, math.inf, problem=f"device {candidate.device} instead of {device or truth.device}"
        )
    if truth.numel() == 0:
        return Comparison(name, shape, 0.0)
    got = (candidate.detach() if values is None else values).to(truth.device, torch.float64)
    own = None if reference is None else reference.detach().to(truth.device, torch.float64)
    spread = spread or spread_of(deviations)
    error = got - truth
    judged = _judged(got, truth, error, own, spread, dtype)
    if overflows and judged is not None:
        judged &= torch.isfinite(got)
    unjudged = 0
    if judged is not None:
        lost = judged & ~torch.isfinite(got)
        if bool(lost.any()):
            index = _index(lost, int(lost.reshape(-1).to(torch.int8).argmax()))
            return Comparison(
                name,
                shape,
                math.inf,
                problem=f"{int(lost.sum())} of {truth.numel()} elements are not finite, and the original's are",
                index=index,
                candidate=float(got[index]),
                oracle=float(truth[index]),
                finite=False,
            )
        unjudged = 0 if bool(judged.all()) else truth.numel() - int(judged.sum())
        if unjudged:
            error = torch.where(judged, error, 0.0)
            spread = spread_of(torch.where(judged, deviations, 0.0))
    found = _levels(error, spread, certain)
    ratio = max(found.ratios)
    if ratio <= 1.0 and own is None:  # most pass, and nobody asks where
        level = LEVELS[found.ratios.index(ratio)]
        return Comparison(name, shape, ratio, level=level, unjudged=unjudged)
    reference_ratio, wider = 0.0, (1.0, 1.0, 1.0)
    if own is not None:
        there = torch.isfinite(own) if judged is None else judged & torch.isfinite(own)
        own_error = torch.where(there, own - truth, 0.0)
        own_found = _levels(own_error, spread, certain)
        reference_ratio = max(own_found.ratios)
        # where the original itself leaves its budget, the model does not hold; then twice its own error is the measure
        wider = tuple(1.0 if its <= 1.0 else 2.0 * its for its in own_found.ratios)  # type: ignore[assignment]  # three
    shares = [_share(mine, factor) for mine, factor in zip(found.ratios, wider, strict=True)]
    element, row = int(found.elements.argmax()), int(found.rows.argmax())
    position = _index(error, element)
    sizes = (float(error[position].abs()), *_norms(error, row))
    allowed = tuple(size / share if share else math.inf for size, share in zip(sizes, shares, strict=True))
    if any(math.isnan(share) for share in shares):  # no budget at all, for either: the errors themselves are compared
        mine, its = _greatest(error), _greatest(own_error)
        shares = [mine / (2.0 * its) if its else math.inf if mine else 0.0]
        sizes, allowed = (mine, *sizes[1:]), (2.0 * its, *allowed[1:])
    ratio = max(shares)
    at = shares.index(ratio)
    return Comparison(
        name,
        shape,
        ratio,
        level=LEVELS[at],
        index=position,
        candidate=float(got[position]),
        oracle=float(truth[position]),
        error=sizes[at],
        allowed=allowed[at],
        over=int((found.elements > found.allowed[0] * wider[0]).sum()),
        row=_index(error[..., 0] if error.dim() else error, row),
        rows_over=int((found.rows > found.allowed[1] * wider[1]).sum()),
        reference_ratio=reference_ratio,
        unjudged=unjudged,
    )


def _norms(error: Tensor, row: int) -> tuple[float, float]:
    """The norm of the error in one row, and in the whole tensor."""
    rows = error.reshape(-1, error.shape[-1] if error.dim() else 1)
    size = _greatest(error) or 1.0  # scaled, so that squares neither overflow nor vanish
    norms = (torch.linalg.vector_norm(x / size) * size for x in (rows[row], rows))
    return float(next(norms)), float(next(norms))


def _judged(
    got: Tensor, truth: Tensor, error: Tensor, own: Tensor | None, spread: Spread, dtype: torch.dtype
) -> Tensor | None:
    """Which elements are judged; None where all are, and all are finite.

    Beyond the largest number of the dtype an infinity is the right answer, and rounding may make the original itself
    overflow; what is not a number is not judged either.
    """
    largest = float(torch.finfo(dtype).max)
    if math.isfinite(_greatest(error)) and _greatest(truth) + 8 * spread.reach <= largest:
        return None
    judged = truth.abs() + 8 * spread.farthest <= largest
    if own is not None and not bool(torch.isfinite(own).all()):
        judged &= torch.isfinite(got)
    return judged


@dataclass(frozen=True)
class _Levels:
    """Errors in units of their standard deviations, by element and by row, and how many of those are allowed to each."""

    elements: Tensor  # (rows * width,)
    rows: Tensor  # (rows,)
    allowed: tuple[float, float]
    ratios: tuple[float, float, float]
    scale: float  # of what the standard deviations are in


def _levels(error: Tensor, spread: Spread, certain: bool) -> _Levels:
    """Error over budget per element, per row (last dimension) and over the whole tensor."""
    scale = max(_greatest(error), spread.reach) or 1.0
    unit = spread.reach / scale
    dof, dof_of_elements = (spread.dof, spread.dof_of_elements) if certain else (math.inf, math.inf)
    # (rows, width); scaled, so that squares neither overflow nor vanish
    e = torch.threshold((error / scale).abs_(), _VANISHES, 0.0).reshape(spread.elements.shape)
    numbers = math.isfinite(spread.reach)
    elements = _over(e, spread.elements, numbers).reshape(-1)
    rows = _over(torch.linalg.vector_norm(e, dim=-1), spread.rows, numbers)
    allowed = (
        unit * student_quantile(FALSE_ALARM / e.numel(), dof_of_elements),
        unit * student_quantile(FALSE_ALARM / e.shape[0], dof),
    )
    tensor_budget = unit * spread.whole * norm_quantile(FALSE_ALARM, spread.effective, dof)
    ratios = (
        _share(float(elements.max()), allowed[0]),
        _share(float(rows.max()), allowed[1]),
        _share(float(torch.linalg.vector_norm(e)), tensor_budget),
    )
    return _Levels(elements, rows, allowed, ratios, scale)


def _greatest(x: Tensor) -> float:
    """The greatest absolute value; not a number where one is none."""
    low, high = torch.aminmax(x)  # some three times as fast as a norm or as taking absolute values first
    return max(-float(low), float(high))


def _over(error: Tensor, budget: Tensor, numbers: bool) -> Tensor:
    """error / budget, with 0 / 0 = 0: exact zeros on both sides are equal. `numbers` says that both are finite."""
    quotient = error / budget
    return quotient.nan_to_num_(0.0, math.inf) if numbers else torch.where(error == 0, 0.0, quotient)


def _share(error: float, budget: float) -> float:
    return 0.0 if error == 0 else math.inf if budget == 0 else error / budget


def _index(x: Tensor, flat: int) -> tuple[int, ...]:
    index = []
    for size in reversed(x.shape):
        flat, at = divmod(flat, size)
        index.append(at)
    return tuple(reversed(index))
