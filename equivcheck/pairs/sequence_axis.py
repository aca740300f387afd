"""The axis of the sequence in the tensors of a function: (B, H, T, D), or (B, T, H, D) as flash-attn has it.

Attention mixes positions, and neither heads nor samples. So the original itself is asked: in one call, sample 0 is
plain, and in each of two others the keys and values at one index of dimension 1 or 2 are other ones.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from equivcheck.pairs.pair import SAMPLE, Pair
from equivcheck.pairs.sides import REFERENCE, ensure_foreign, foreign
from equivcheck.runtime.global_state import preserved
from equivcheck.runtime.rng import seeded

__all__ = ["HEADS_LAST", "MIXED_DIMENSIONS", "heads_last", "mixed_along", "mixes_along", "turned"]

MIXED_DIMENSIONS = (1, 2)

HEADS_LAST = (
    "the functions take (B, T, H, D): outputs of the original mix along dimension 1 alone; "
    "cases are made in that layout, and messages name tensors as (B, H, T, D)"
)

_TRIED = (  # dimensions 1 and 2, the size of a head, dtypes: what kernels like comes last
    (4, 5, 8, ("float64", "float32", "bfloat16", "float16")),
    (4, 5, 64, ("bfloat16", "float16", "float32")),
    (16, 32, 64, ("bfloat16", "float16", "float32")),
    (64, 128, 64, ("bfloat16", "float16", "float32")),
)
_MOVED = 2.0**-8  # of the largest output: far above rounding in half precision, far below what other values move


def heads_last(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of (B, T, H, D) tensors as one of (B, H, T, D) tensors; options are passed as they are.

    Args:
        function: Takes q, k and v, and returns a tensor; another result is returned as it is.
    """

    @functools.wraps(function, updated=())
    def called(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Any:
        q, k, v = (x.transpose(-3, -2) for x in (q, k, v))  # (B, T, H, D)
        y = function(q, k, v, **options)
        return y.transpose(-3, -2) if isinstance(y, Tensor) and y.dim() > 2 else y  # (B, H, T, D)

    return called


def turned(subject: Pair) -> Pair:
    """The pair of functions as functions of (B, H, T, D), whichever of the two layouts the original takes."""
    mixed = mixed_along(subject, subject.reference, [subject.device])
    if mixed == (1,):
        return replace(
            subject,
            reference=heads_last(subject.reference),
            candidate=heads_last(subject.candidate),
            heads_last=True,
            notes=(*subject.notes, HEADS_LAST),
        )
    if mixed == MIXED_DIMENSIONS:
        note = "outputs of the original mix along dimension 1 and along dimension 2: they are taken as (B, H, T, D)"
        return replace(subject, notes=(*subject.notes, note))
    return subject


def mixed_along(subject: Pair, function: Callable[..., Any], devices: Sequence[torch.device]) -> tuple[int, ...] | None:
    """The dimensions along which a function with the pair's options mixes; see `mixes_along`."""

    def run(q: Tensor, k: Tensor, v: Tensor) -> Any:
        case = SAMPLE.but(head_size=q.size(-1), is_causal="is_causal" not in subject.options)
        return subject.as_module(function, case)(q, k, v)

    return mixes_along(run, devices)


def mixes_along(
    run: Callable[[Tensor, Tensor, Tensor], Any], devices: Sequence[torch.device]
) -> tuple[int, ...] | None:
    """The dimensions of 1 and 2 along which a function mixes its keys into its outputs; None if it does not run.

    Args:
        run: Calls the function on q, k and v with all options at rest, without a causal mask if it can be left out.
        devices: The devices to try, the best first.
    """
    for device, dtype, sizes in _settings(devices):
        tensors = _asked(*sizes, device, dtype)
        try:
            with preserved(), seeded(0, device), torch.no_grad(), foreign(REFERENCE):
                y = run(*tensors)
        except Exception as error:  # a kernel for other sizes, dtypes or devices
            ensure_foreign(error)
            continue
        if isinstance(y, Tensor) and y.shape == tensors[0].shape:
            return tuple(d for d in MIXED_DIMENSIONS if _moved(y.double(), d))
    return None


def _settings(devices: Sequence[torch.device]) -> Iterator[tuple[torch.device, torch.dtype, tuple[int, int, int]]]:
    for first, second, size, dtypes in _TRIED:
        for device in devices:
            for dtype in dtypes:
                yield device, getattr(torch, dtype), (first, second, size)


def _asked(first: int, second: int, size: int, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """q, k and v: three samples that differ in one key and value, or not at all."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 1, first, second, size, generator=draw, dtype=torch.float64)  # (1, X, Y, D) each
    q, k, v = (x.repeat(3, 1, 1, 1) for x in (q, k, v))  # (3, X, Y, D) each
    for dimension in MIXED_DIMENSIONS:  # index 0: a causal mask shows it to all queries
        for x in (k, v):
            changed = x[dimension].select(dimension - 1, 0)  # a view
            changed.copy_(2 * torch.randn(changed.shape, generator=draw, dtype=torch.float64))
    return tuple(x.to(device, dtype) for x in (q, k, v))


def _moved(y: Tensor, dimension: int) -> bool:
    """Whether outputs at other indexes of `dimension` moved in the sample whose index 0 there was changed."""
    length = y.size(dimension) - 1
    plain, other = (y[at].narrow(dimension - 1, 1, length) for at in (0, dimension))
    return float((other - plain).nan_to_num().abs().max()) > _MOVED * float(plain.nan_to_num().abs().max())
