"""A test that a dropout mask is random: elements are dropped at the rate, everywhere, and independently of each other.

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
"""Flash kernels compare a rate with eight random bits: two right rates may differ by so much."""

_TILE = 16
_KINDS = 8  # of slices, at most
_KEPT_SHAPES = 4  # shapes for which the counts of pairs are kept
PROBABILITIES = ("calls", "samples", "heads", "queries", "keys")
OUTPUTS = ("calls", "samples", "-", "positions", "channels")


def check_mask(
    keep_mask: Tensor,
    visible: Tensor,
    rate: float,
    *,
    tail: float,
    axes: Sequence[str] = PROBABILITIES,
    peers: Callable[[], Iterable[Tensor]] = tuple,
) -> str:
    """Check that a mask is one of independent drops.

    Args:
        keep_mask: The mask, (calls, B, H, T, T) of probabilities or (calls, B, 1, T, C) of outputs; True where kept.
        visible: The places that are tested, bool; it broadcasts to `keep_mask`.
        rate: The rate at which places must be dropped.
        tail: The chance, at most, with which a right mask fails.
        axes: Names of the dimensions, PROBABILITIES or OUTPUTS.
        peers: Gives masks of the same shape that the original and torch draw here. It is called if places are not
            independent: a mask that is no worse than these passes.

    Returns:
        A note on a dependence that passed; empty without one.

    Raises:
        Mismatch: Places are dropped at another rate, or not independently.
    """
    seen = visible.expand(keep_mask.shape).double()
    if rate in (0.0, 1.0):
        wrong = int(((keep_mask != (rate == 0.0)) & (seen > 0)).sum())
        if wrong:
            state = "dropped" if rate == 0.0 else "kept"
            raise Mismatch(f"{wrong} of {int(seen.sum())} {axes[-1]} are {state} at a rate of {rate:g}", where="rate")
        return ""
    # A shared mask also moves the rate of slices, and a wrong rate also looks like a dependence: raise the greater one.
    mismatches: list[Mismatch] = []
    note, excused = "", _INDEPENDENT
    try:
        note, excused = _check_offsets(keep_mask, visible, rate, tail / 2, axes, peers)
    except Mismatch as error:
        mismatches.append(error)
    try:
        _check_rates(((~keep_mask).double() - rate) * seen, seen, rate, tail / 2, axes, excused)
    except Mismatch as error:
        mismatches.append(error)
    if mismatches:
        raise max(mismatches, key=lambda error: error.ratio)
    return note


@dataclass(frozen=True)
class _Dependence:
    """Variance inflation of a sum over the mask, relative to independent drops.

    Both are Bartlett's (1946). The variance of a sum of n dependent terms is n times the sum of their correlations. The
    variance of a sum of n products of a linear process is at most 2 n times the sum of the squared correlations.

    Attributes:
        places: For sums of entries.
        products: For sums of products of entries.
    """

    places: float = 1.0
    products: float = 1.0

    def or_more(self, other: "_Dependence") -> "_Dependence":
        """The greater inflation of the two, of each kind."""
        return _Dependence(max(self.places, other.places), max(self.products, other.products))


_INDEPENDENT = _Dependence()


def _allowed(count: Tensor, variance: float, largest: float, tail: float) -> Tensor:
    """The bound that sums of `count` independent terms of mean 0 exceed with chance `tail` at most (Bernstein 1924)."""
    log = math.log(2 / tail)
    return log * largest / 3 + torch.sqrt((log * largest / 3) ** 2 + 2 * log * variance * count)


def _slices(x: Tensor, axes: Sequence[str]) -> Iterator[tuple[str, Tensor]]:
    """Sums of x (calls, B, H, T, T) over all but one of its dimensions, and by distance and tile."""
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
    """Check that the sums over slices of `off`, drops less the rate, are 0 up to chance and granularity.

    Raises:
        Mismatch: A sum is greater; the message names the worst slice.
    """
    variance, largest = rate * (1 - rate) * excused.places, max(rate, 1 - rate) * excused.places
    worst, message = 1.0, ""
    for (name, sums), (_, counts) in zip(_slices(off, axes), _slices(seen, axes), strict=True):
        allowed = _allowed(counts, variance, largest, tail / _KINDS / sums.numel()) + GRANULARITY * counts
        ratios = sums.abs() / allowed
        at = int(ratios.argmax())
        if float(ratios[at]) > worst:
            worst = float(ratios[at])
            share = max(0.0, round(rate + float(sums[at] / counts[at]), 12))  # neither -0 nor a rounding error of 0
            where = "" if sums.numel() == 1 else f" number {at}"
            message = (
                f"{share:.4g} of what is seen is dropped at a rate of {rate:g} ({name}{where}, of {int(counts[at])}); "
                f"chance and eight random bits allow {float(allowed[at] / counts[at]):.2g} more or less"
            )
    if message:
        raise Mismatch(message, ratio=worst, where="rate")


def _check_offsets(
    keep_mask: Tensor,
    visible: Tensor,
    rate: float,
    tail: float,
    axes: Sequence[str],
    peers: Callable[[], Iterable[Tensor]],
) -> tuple[str, _Dependence]:
    """Check the sums of products of every two places at one offset, for all offsets.

    Calls, samples and heads count as one dimension.

    Returns:
        A note on a dependence that the masks of peers have, too, and that dependence.

    Raises:
        Mismatch: A sum is greater than chance allows and greater than the peers'.
    """
    shape = (math.prod(keep_mask.shape[:3]), *keep_mask.shape[-2:])  # (calls * B * H, T, T)
    counts, visible = _pairs(keep_mask, shape, visible), visible.expand(keep_mask.shape).reshape(shape)
    if counts.view(-1)[0] < 2:
        return "", _INDEPENDENT

    def allowed_where(dependence: _Dependence) -> Tensor:
        variance, largest = (rate * (1 - rate)) ** 2, max(rate, 1 - rate) ** 2
        times = dependence.products
        # wide enough for the square of the granularity of the rate
        chance = _allowed(counts, variance * times, largest * times, tail / counts.numel())
        return chance + counts * GRANULARITY**2

    allowed = allowed_where(_INDEPENDENT)
    products = _products(keep_mask.reshape(shape), visible)
    at, worst = _greatest(products, allowed)
    if worst <= 1:
        return "", _INDEPENDENT
    description = _description(products, counts, at, keep_mask, visible, axes)
    greatest_of_peers, dependence = torch.zeros_like(allowed), _INDEPENDENT
    for peer in peers():
        peer_products = _products(peer.reshape(shape), visible)
        # if some places depend on each other, the sums at all other offsets scatter more
        correlations = torch.where(
            peer_products.abs() > allowed, peer_products / counts.clamp_min(1) / (rate * (1 - rate)), 0.0
        )
        dependence = dependence.or_more(
            _Dependence(1.0 + float(correlations.abs().sum()), 2.0 * (1.0 + float(correlations.square().sum())))
            if bool(correlations.any())
            else _INDEPENDENT
        )
        greatest_of_peers = torch.maximum(greatest_of_peers, peer_products.abs())
    chance = allowed_where(dependence)
    excused = torch.where(greatest_of_peers > allowed, greatest_of_peers + 2 * chance, chance)
    at, worst = _greatest(products, excused)
    if worst <= 1:
        return (
            f"dropped places are not independent, and neither are torch's own on this device: {description}",
            dependence,
        )
    description = _description(products, counts, at, keep_mask, visible, axes)
    raise Mismatch(f"dropped places are not independent: {description}", ratio=worst, where="independence")


def _products(flat: Tensor, visible: Tensor) -> Tensor:
    """Sums of products of every two places, each less the mean, by offset."""
    products = _correlated(_centred(flat, visible)).double()
    products.view(-1)[0] = 0.0  # each place with itself
    return products


def _centred(flat: Tensor, visible: Tensor) -> Tensor:
    """1 for a dropped place and 0 for a kept one, less the mean; 0 for an invisible place."""
    seen = visible.expand(flat.shape)
    dropped = (~flat & seen).float()
    return (dropped - float(dropped.sum()) / int(seen.sum())) * seen


def _greatest(products: Tensor, allowed: Tensor) -> tuple[int, float]:
    ratios = (products.abs() / allowed).reshape(-1)
    at = int(ratios.argmax())
    return at, float(ratios[at])


def _description(
    products: Tensor, counts: Tensor, at: int, keep_mask: Tensor, visible: Tensor, axes: Sequence[str]
) -> str:
    index = torch.unravel_index(torch.tensor(at), products.shape)
    masks, *plane = [int(i) - (n if int(i) > n // 2 else 0) for i, n in zip(index, products.shape, strict=True)]
    (rest, heads), samples = divmod(abs(masks), keep_mask.shape[2]), keep_mask.shape[1]
    steps = (rest // samples, rest % samples, heads, *plane)
    apart = ", ".join(f"{step} {name}" for step, name in zip(steps, axes, strict=True) if step)
    pairs = int(counts.reshape(-1)[at])
    flat = keep_mask.reshape(-1, *keep_mask.shape[-2:])
    alike = _correlation(_centred(flat, visible).double(), (masks, *plane))
    return f"those that lie {apart} apart have a correlation of {alike:.3g} over {pairs} pairs"


def _correlation(x: Tensor, offset: Sequence[int]) -> float:
    """The correlation, between -1 and 1, of the places of x, of mean 0, with those at an offset."""
    one = x[tuple(slice(max(0, -step), n - max(0, step)) for step, n in zip(offset, x.shape, strict=True))]
    other = x[tuple(slice(max(0, step), n - max(0, -step)) for step, n in zip(offset, x.shape, strict=True))]
    there = (one != 0) & (other != 0)
    size = float((one[there].square().sum() * other[there].square().sum()).sqrt())
    return float((one[there] * other[there]).sum()) / size if size else 0.0


_counted: dict[Any, Tensor] = {}


def _pairs(keep_mask: Tensor, shape: tuple[int, ...], visible: Tensor) -> Tensor:
    """The number of pairs of visible places at each offset; remembered for a few shapes and visibilities."""
    # the places and not their number: a window and a chunk may have as many
    key = (shape, visible.device, visible.shape, bytes(visible.flatten().tolist()))
    if key not in _counted:
        if len(_counted) >= _KEPT_SHAPES:
            _counted.clear()
        seen = visible.expand(keep_mask.shape).reshape(shape)
        _counted[key] = _correlated(seen.float()).round().clamp_min(0).double()
    return _counted[key]


def _correlated(x: Tensor) -> Tensor:
    """Sums of x[i] * x[i + offset] for all offsets, padded so that none wraps around."""
    shape = [1 if n == 1 else 2 * n for n in x.shape]
    transformed = torch.fft.rfftn(x, s=shape)
    sums: Tensor = torch.fft.irfftn(transformed.abs().square(), s=shape)
    return sums
