"""Which query sees which key, read off the original: causal, bidirectional, windowed, chunked, or with a prefix.

With equal scores each visible key has the same probability, and a hidden one has exactly 0. So the readings that show
dropout masks show visibility where nothing is dropped. Mostly one reading is enough: it confirms a guess, since the
probabilities of each query sum to 1.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from equivcheck.cases.case import Case
from equivcheck.checks.dropout.attention_layers import find_attentions
from equivcheck.checks.dropout.masks import Reading, Recovery, joined
from equivcheck.errors import NotOpened
from equivcheck.pairs.visible import Visible

__all__ = ["must_return_the_last_linear", "must_show", "read_visible", "visible_keys"]

_UNIFORM = 2.0**-6  # of 1 / (number of visible keys): far above rounding in any dtype, far below a factor


def visible_keys(case: Case, length: int, device: torch.device) -> Tensor:
    """The keys that each query sees if the case says all about it, as a bool mask (T, T)."""
    visible = torch.ones(length, length, dtype=torch.bool, device=device)
    return visible.tril() if case.is_causal else visible


def read_visible(recovery: Recovery, length: int, known: Visible | None = None) -> Visible:
    """Return the keys that each query of the original sees, over T = `length` positions.

    Args:
        recovery: Reads the original, in a mode without dropout.
        length: The number of positions.
        known: What an earlier reading showed. It is a guess: visibility may depend on the inputs.

    Raises:
        NotOpened: Probabilities are not equal, or an output is not what leaves the last linear.
    """
    reading = _whole_outputs(recovery.read(0, length))
    weights = reading.weights
    guess = visible_keys(recovery.case, length, weights[0].device)
    for visible in (Visible((guess,) * len(weights)), known):
        if visible is not None and _fits(weights, visible):
            return visible
    starts = range(recovery.case.head_size, length, recovery.case.head_size)
    whole = joined([reading, *(recovery.read(first, length) for first in starts)], length)
    visible = Visible(tuple(_smallest(weights != 0) for weights in whole))
    if not _fits(whole, visible):
        raise NotOpened("with equal scores its probabilities are not equal")
    return visible


def must_show(recovery: Recovery, length: int, visible: Visible) -> None:
    """Check that a module shows equal probabilities of exactly the visible keys, in a mode without dropout.

    Raises:
        NotOpened: It shows something else.
    """
    if not _fits(_whole_outputs(recovery.read(0, length)).weights, visible):
        raise NotOpened("with equal scores its probabilities are not equal")
    must_return_the_last_linear(recovery, length)


def must_return_the_last_linear(recovery: Recovery, length: int) -> None:
    """Check that an attention layer returns what leaves its last linear, and nothing with it.

    A block that is one layer adds its input and the rest of itself: what it drops shows in none of its results.

    Raises:
        NotOpened: It returns more.
    """
    if not find_attentions(recovery.module, recovery.case)[0].linears:  # a function has no last linear
        return
    if any(bool(left.any()) for left in recovery.read(0, length, out_value=0.0).left):
        raise NotOpened("what it returns is more than what leaves its last linear")


def _whole_outputs(reading: Reading) -> Reading:
    """The reading.

    Raises:
        NotOpened: Some of an output is dropped.
    """
    if not all(bool(keep_mask.all()) for keep_mask in reading.left):
        raise NotOpened("what leaves its last linear is not what it returns")
    return reading


def _fits(weights: Sequence[Tensor], visible: Visible) -> bool:
    """Whether the first probabilities of each layer, (B, H, T, D), are equal over the visible keys, and else 0."""
    if len(weights) != len(visible.layers):
        return False
    shown: dict[int, Tensor] = {}  # layers mostly share one mask
    for parts, seen in zip(weights, visible.layers, strict=True):
        if id(seen) not in shown:
            shown[id(seen)] = seen.double() / seen.sum(-1, keepdim=True).clamp_min(1)  # (B, H, T, T)
        uniform = shown[id(seen)][..., : parts.shape[-1]]
        probabilities = parts[..., : uniform.shape[-1]].double()
        if not bool(((probabilities - uniform).abs() <= _UNIFORM * uniform).all()):
            return False
    return True


def _smallest(seen: Tensor) -> Tensor:
    """A mask (B, H, T, T) without the dimensions over which it is the same."""
    for dim in (0, 1):
        first = seen.narrow(dim, 0, 1)
        if torch.equal(first.expand_as(seen), seen):
            seen = first
    return seen.clone()
