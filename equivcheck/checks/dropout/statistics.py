"""Whether a dropout mask is random as it must be: dropped at the rate, everywhere, and no two places alike.

Two families of sums over the mask, each with a bound that holds for any number of terms (Bernstein's inequality):
the share dropped in every slice (call, sample, head, query, key, distance, tile), and the products of places at every
offset from each other, all offsets at once by a Fourier transform (Wiener and Khinchin).
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equivcheck.errors import Mismatch

__all__ = ["GRANULARITY", "OUTPUTS", "PROBABILITIES", "check_mask"]

GRANULARITY = 1 / 256
"""Flash kernels compare a rate with eight random bits: two right rates may be as far apart as this."""

_TILE = 16
_KINDS = 8  # of slices, at most
_KEPT_SHAPES = 4
PROBABILITIES = ("calls", "samples", "heads", "queries", "keys")
OUTPUTS = ("calls", "samples", "-", "positions", "channels")


def check_mask(
    kept: Tensor,
    visible: Tensor,
    rate: float,
    *,
    tail: float,
    axes: Sequence[str] = PROBABILITIES,
    peers: Callable[[], Iterable[Tensor]] = tuple,
) -> str:
    """Hold a mask (calls, B, H, T, T) against independent drops at `rate` where `visible` (T, T); a Mismatch where it is not.

    A right mask fails with a chance of at most `tail`. `axes` names the dimensions: a mask of outputs is
    (calls, B, 1, T, C), with OUTPUTS. `peers` gives masks of the same shape that the original and torch itself draw here,
    and is asked where places are not independent: what is no worse than theirs passes, and is returned as a note.
    """
    seen = visible.expand(kept.shape).double()
    if rate in (0.0, 1.0):
        wrong = int(((kept != (rate == 0.0)) & (seen > 0)).sum())
        if wrong:
            told = "dropped" if rate == 0.0 else "kept"
            raise Mismatch(f"{wrong} of {int(seen.sum())} {axes[-1]} are {told} at a rate of {rate:g}", where="rate")
        return ""
    # what is shared shows in slices too, as a rate that is off, and a rate that is off as a dependence: the greater is told
    found: list[Mismatch] = []
    note, excused = "", _INDEPENDENT
    try:
        note, excused = _check_offsets(kept, visible, rate, tail / 2, axes, peers)
    except Mismatch as error:
        found.append(error)
    try:
        _check_rates(((~kept).double() - rate) * seen, seen, rate, tail / 2, axes, excused)
    except Mismatch as error:
        found.append(error)
    if found:
        raise max(found, key=lambda error: error.ratio)
    return note


@dataclass(frozen=True)
class _Dependence:
    """How many times as far as those of independent places sums reach, squared: of the places, and of their products.

    Both are Bartlett's (1946): the variance of a sum of n dependent terms is n times the sum of their correlations, and that
    of a sum of n products of a linear process n times at most twice the sum of the squares.
    """

    places: float = 1.0
    products: float = 1.0

    def or_more(self, other: "_Dependence") -> "_Dependence":
        return _Dependence(max(self.places, other.places), max(self.products, other.products))


_INDEPENDENT = _Dependence()


def _allowed(count: Tensor, variance: float, largest: float, tail: float) -> Tensor:
    """What a sum of `count` independent terms of mean zero exceeds with a chance of at most `tail` (Bernstein 1924)."""
    log = math.log(2 / tail)
    return log * largest / 3 + torch.sqrt((log * largest / 3) ** 2 + 2 * log * variance * count)


def _slices(x: Tensor, axes: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """Sums of x (calls, B, H, T, T) over everything but one thing."""
    yield "everywhere", x.sum().reshape(1)
    for axis, name in enumerate(axes):
        if x.shape[axis] > 1:
            yield f"by {name}", x.sum([a for a in range(5) if a != axis])
    plane = x.sum((0, 1, 2))  # (T, T)
    T = plane.shape[0]
    if T > 1 and axes[-1] == "keys":
        distance = torch.arange(T, device=x.device)
        away = (distance.unsqueeze(1) - distance.unsqueeze(0)) % T
        yield (
            "by distance of query and key",
            torch.zeros_like(plane[0]).index_add_(0, away.reshape(-1), plane.reshape(-1)),
        )
    if T >= 2 * _TILE and plane.shape[1] == T:
        cut = plane[: T // _TILE * _TILE, : T // _TILE * _TILE]
        yield f"by tiles of {_TILE}", cut.reshape(T // _TILE, _TILE, T // _TILE, _TILE).sum((1, 3)).reshape(-1)


def _check_rates(
    off: Tensor, seen: Tensor, rate: float, tail: float, axes: Sequence[str], excused: _Dependence
) -> None:
    """`off` is of mean zero where it is `seen`: so are its sums over slices, but for chance and granularity."""
    variance, largest = rate * (1 - rate) * excused.places, max(rate, 1 - rate) * excused.places
    worst, told = 1.0, ""
    for (name, sums), (_, counts) in zip(_slices(off, axes), _slices(seen, axes), strict=True):
        allowed = _allowed(counts, variance, largest, tail / _KINDS / sums.numel()) + GRANULARITY * counts
        ratios = sums.abs() / allowed
        at = int(ratios.argmax())
        if float(ratios[at]) > worst:
            worst = float(ratios[at])
            share = max(0.0, round(rate + float(sums[at] / counts[at]), 12))  # no -0, nor what rounding leaves of 0
            where = "" if sums.numel() == 1 else f" number {at}"
            told = (
                f"{share:.4g} of what is seen is dropped at a rate of {rate:g} ({name}{where}, of {int(counts[at])}); "
                f"chance and eight random bits allow {float(allowed[at] / counts[at]):.2g} more or less"
            )
    if told:
        raise Mismatch(told, ratio=worst, where="rate")


def _check_offsets(
    kept: Tensor,
    visible: Tensor,
    rate: float,
    tail: float,
    axes: Sequence[str],
    peers: Callable[[], Iterable[Tensor]],
) -> tuple[str, _Dependence]:
    """The products of every two places at one offset, for all offsets; calls, samples and heads count as one dimension."""
    shape = (math.prod(kept.shape[:3]), *kept.shape[-2:])  # (calls * B * H, T, T)
    counts = _pairs(shape, visible)
    if counts.view(-1)[0] < 2:
        return "", _INDEPENDENT

    def allowed_where(dependence: _Dependence) -> Tensor:
        variance, largest = (rate * (1 - rate)) ** 2, max(rate, 1 - rate) ** 2
        times = dependence.products
        # wide enough for the rate's own granularity, squared
        chance = _allowed(counts, variance * times, largest * times, tail / counts.numel())
        return chance + counts * GRANULARITY**2

    allowed = allowed_where(_INDEPENDENT)
    products = _products(kept.reshape(shape), visible)
    at, worst = _greatest(products, allowed)
    if worst <= 1:
        return "", _INDEPENDENT
    told = _told(products, counts, at, kept, visible, axes)
    theirs, dependence = torch.zeros_like(allowed), _INDEPENDENT
    for peer in peers():
        its = _products(peer.reshape(shape), visible)
        # where some places depend on each other, the sums at all other offsets scatter more than independent ones do
        correlations = torch.where(its.abs() > allowed, its / counts.clamp_min(1) / (rate * (1 - rate)), 0.0)
        dependence = dependence.or_more(
            _Dependence(1.0 + float(correlations.abs().sum()), 2.0 * (1.0 + float(correlations.square().sum())))
            if bool(correlations.any())
            else _INDEPENDENT
        )
        theirs = torch.maximum(theirs, its.abs())
    chance = allowed_where(dependence)
    excused = torch.where(theirs > allowed, theirs + 2 * chance, chance)
    at, worst = _greatest(products, excused)
    if worst <= 1:
        return f"dropped places are not independent, and neither are torch's own on this device: {told}", dependence
    told = _told(products, counts, at, kept, visible, axes)
    raise Mismatch(f"dropped places are not independent: {told}", ratio=worst, where="independence")


def _products(flat: Tensor, visible: Tensor) -> Tensor:
    """Sums of products of every two places, each less the mean, by their offset."""
    products = _correlated(_centred(flat, visible)).double()
    products.view(-1)[0] = 0.0  # each place with itself
    return products


def _centred(flat: Tensor, visible: Tensor) -> Tensor:
    """1 where a place is dropped and 0 where it is kept, less the mean; 0 where nothing is seen."""
    seen = visible.expand(flat.shape)
    dropped = (~flat & seen).float()
    return (dropped - float(dropped.sum()) / int(seen.sum())) * seen


def _greatest(products: Tensor, allowed: Tensor) -> tuple[int, float]:
    ratios = (products.abs() / allowed).reshape(-1)
    at = int(ratios.argmax())
    return at, float(ratios[at])


def _told(products: Tensor, counts: Tensor, at: int, kept: Tensor, visible: Tensor, axes: Sequence[str]) -> str:
    index = torch.unravel_index(torch.tensor(at), products.shape)
    masks, *plane = [int(i) - (n if int(i) > n // 2 else 0) for i, n in zip(index, products.shape, strict=True)]
    (rest, heads), samples = divmod(abs(masks), kept.shape[2]), kept.shape[1]
    steps = (rest // samples, rest % samples, heads, *plane)
    apart = ", ".join(f"{step} {name}" for step, name in zip(steps, axes, strict=True) if step)
    pairs = int(counts.reshape(-1)[at])
    flat = kept.reshape(-1, *kept.shape[-2:])
    alike = _correlation(_centred(flat, visible).double(), (masks, *plane))
    return f"those that lie {apart} apart have a correlation of {alike:.3g} over {pairs} pairs"


def _correlation(x: Tensor, offset: Sequence[int]) -> float:
    """The correlation of the places of x, of mean zero, with those at an offset: between -1 and 1."""
    one = x[tuple(slice(max(0, -step), n - max(0, step)) for step, n in zip(offset, x.shape, strict=True))]
    other = x[tuple(slice(max(0, step), n - max(0, -step)) for step, n in zip(offset, x.shape, strict=True))]
    there = (one != 0) & (other != 0)
    size = float((one[there].square().sum() * other[there].square().sum()).sqrt())
    return float((one[there] * other[there]).sum()) / size if size else 0.0


_counted: dict[Any, Tensor] = {}


def _pairs(shape: tuple[int, ...], visible: Tensor) -> Tensor:
    """How many pairs of visible places there are at each offset; kept, for a few shapes."""
    key = (shape, visible.device, int(visible.sum()))
    if key not in _counted:
        if len(_counted) >= _KEPT_SHAPES:
            _counted.clear()
        _counted[key] = _correlated(visible.expand(shape).float()).round().clamp_min(0).double()
    return _counted[key]


def _correlated(x: Tensor) -> Tensor:
    """Sums of x[i] * x[i + offset] for all offsets, padded so that none wraps around."""
    shape = [1 if n == 1 else 2 * n for n in x.shape]
    transformed = torch.fft.rfftn(x, s=shape)
    sums: Tensor = torch.fft.irfftn(transformed.abs().square(), s=shape)
    return sums
