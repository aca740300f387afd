"""The comparison of a candidate's tensor with the oracle's within its budget, by element, by row and as a whole."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from equivcheck.numerics.quantiles import norm_quantile, student_quantile
from equivcheck.numerics.spread import Spread, spread_of

__all__ = ["FALSE_ALARM", "Comparison", "compare"]

FALSE_ALARM = 1e-9
"""The probability, under the model of the budget, that one comparison of two right tensors fails."""

LEVELS = ("element", "row", "tensor")
_VANISHES = (
    1e-150  # share of the tensor's greatest error: smaller deviations have squares, and a budget, of zero in float64
)


@dataclass(frozen=True)
class Comparison:
    """The result of comparing one tensor with the oracle's: it passes if `ratio` is at most 1.

    `ratio` belongs to the worst of three levels: element, row and tensor. It is the quotient of `error` and `allowed`,
    which belong to the same level: one element's error, or the norm of the error of a row or of the tensor.
    """

    name: str
    shape: tuple[int, ...]
    ratio: float
    level: str = "element"
    problem: str = ""  # of shape, dtype, device or finiteness: then no values were compared
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
    finite: bool = True  # False if the problem is that some elements are not finite
    by_level: tuple[
        tuple[float, float], ...
    ] = ()  # error and allowed, at the worst element, at the worst row, of the whole

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
    undefined: Tensor | None = None,
) -> Comparison:
    """Compare a candidate's tensor with the oracle's: shape, dtype, device and finiteness first, then values.

    Args:
        name: The name of the tensor in reports.
        candidate: The candidate's tensor; None if it has none.
        truth: The oracle's tensor.
        deviations: The effect of rounding in perturbed runs of the original, (count, *shape).
        dtype: The dtype that the candidate's tensor must have.
        reference: The original's own tensor in that dtype, or None. If its error exceeds the budget, the candidate is
            allowed twice that error.
        certain: Whether the budget is widened by the uncertainty of the estimated spread, so that a failure is final.
            With `certain=False` the sample variance is treated as exact; then only a pass is final.
        device: The device that the candidate's tensor must be on; None for the oracle's.
        spread: The spread of `deviations`, if it is known already.
        values: The candidate's values on the oracle's device, if they are there already.
        overflows: Whether a right implementation may overflow on the way: then elements that are not finite are left
            out.
        undefined: The elements of which the same is true, because they have no meaning; broadcasts to the tensor.
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
    candidate_values = (candidate.detach() if values is None else values).to(truth.device, torch.float64)
    reference_values = None if reference is None else reference.detach().to(truth.device, torch.float64)
    spread = spread or spread_of(deviations)
    error = candidate_values - truth
    judged = _judged(candidate_values, truth, error, reference_values, spread, dtype)
    if overflows and judged is not None:
        judged &= torch.isfinite(candidate_values)
    if undefined is not None:
        meant = torch.isfinite(candidate_values) | ~undefined
        judged = meant if judged is None else judged & meant
    unjudged = 0
    if judged is not None:
        not_finite = judged & ~torch.isfinite(candidate_values)
        if bool(not_finite.any()):
            index = _index(not_finite, int(not_finite.reshape(-1).to(torch.int8).argmax()))
            return Comparison(
                name,
                shape,
                math.inf,
                problem=f"{int(not_finite.sum())} of {truth.numel()} elements are not finite, and the original's are",
                index=index,
                candidate=float(candidate_values[index]),
                oracle=float(truth[index]),
                finite=False,
            )
        unjudged = 0 if bool(judged.all()) else truth.numel() - int(judged.sum())
        if unjudged:
            error = torch.where(judged, error, 0.0)
            spread = spread_of(torch.where(judged, deviations, 0.0))
    levels = _levels(error, spread, certain)
    ratio = max(levels.ratios)
    if ratio <= 1.0 and reference_values is None:  # most pass, and need no position
        level = LEVELS[levels.ratios.index(ratio)]
        return Comparison(name, shape, ratio, level=level, unjudged=unjudged)
    reference_ratio = 0.0
    wider: tuple[float, ...] = (1.0, 1.0, 1.0)
    if reference_values is not None:
        usable = torch.isfinite(reference_values) if judged is None else judged & torch.isfinite(reference_values)
        reference_error = torch.where(usable, reference_values - truth, 0.0)
        reference_levels = _levels(reference_error, spread, certain)
        reference_ratio = max(reference_levels.ratios)
        # if the original itself exceeds the budget, the model does not fit; then twice the original's error is allowed
        wider = tuple(1.0 if share <= 1.0 else 2.0 * share for share in reference_levels.ratios)
    shares = [_share(level_ratio, factor) for level_ratio, factor in zip(levels.ratios, wider, strict=True)]
    element, row = int(levels.elements.argmax()), int(levels.rows.argmax())
    position = _index(error, element)
    sizes = (float(error[position].abs()), *_norms(error, row))
    allowed = tuple(size / share if share else math.inf for size, share in zip(sizes, shares, strict=True))
    if any(math.isnan(share) for share in shares):  # neither has a budget: the errors themselves are compared
        candidate_size, reference_size = _greatest(error), _greatest(reference_error)
        shares = [candidate_size / (2.0 * reference_size) if reference_size else math.inf if candidate_size else 0.0]
        sizes, allowed = (candidate_size, *sizes[1:]), (2.0 * reference_size, *allowed[1:])
    ratio = max(shares)
    at = shares.index(ratio)
    return Comparison(
        name,
        shape,
        ratio,
        level=LEVELS[at],
        index=position,
        candidate=float(candidate_values[position]),
        oracle=float(truth[position]),
        error=sizes[at],
        allowed=allowed[at],
        over=int((levels.elements > levels.allowed[0] * wider[0]).sum()),
        row=_index(error[..., 0] if error.dim() else error, row),
        rows_over=int((levels.rows > levels.allowed[1] * wider[1]).sum()),
        reference_ratio=reference_ratio,
        unjudged=unjudged,
        by_level=tuple(zip(sizes, allowed, strict=True)),
    )


def _norms(error: Tensor, row: int) -> tuple[float, float]:
    """The norm of the error of one row, and of the whole tensor."""
    rows = error.reshape(-1, error.shape[-1] if error.dim() else 1)
    size = _greatest(error) or 1.0  # scaled, so that squares neither overflow nor vanish
    norms = (torch.linalg.vector_norm(x / size) * size for x in (rows[row], rows))
    return float(next(norms)), float(next(norms))


def _judged(
    candidate_values: Tensor,
    truth: Tensor,
    error: Tensor,
    reference_values: Tensor | None,
    spread: Spread,
    dtype: torch.dtype,
) -> Tensor | None:
    """A mask of the elements that are judged; None if all are judged and all are finite.

    Beyond the largest number of the dtype infinity is the right answer, and the original itself may overflow by
    rounding: where it does, the candidate may. Elements whose truth is NaN are not judged either.
    """
    largest = float(torch.finfo(dtype).max)
    if math.isfinite(_greatest(error)) and _greatest(truth) + 8 * spread.reach <= largest:
        return None
    judged = truth.abs() + 8 * spread.farthest <= largest
    if reference_values is not None and not bool(torch.isfinite(reference_values).all()):
        judged &= torch.isfinite(candidate_values) | torch.isfinite(reference_values)
    return judged


@dataclass(frozen=True)
class _Levels:
    """Errors by element and by row in units of their standard deviations, and how many of those units are allowed."""

    elements: Tensor  # (rows * width,)
    rows: Tensor  # (rows,)
    allowed: tuple[float, float]
    ratios: tuple[float, float, float]
    scale: float  # the unit of the standard deviations


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
    """The greatest absolute value; NaN if an element is NaN."""
    low, high = torch.aminmax(x)  # about three times as fast as a norm, or as absolute values first
    return max(-float(low), float(high))


def _over(error: Tensor, budget: Tensor, numbers: bool) -> Tensor:
    """error / budget, with 0 / 0 = 0 for exact zeros on both sides; `numbers` says that both are finite."""
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
