"""Readings in which queries see other keys: masks that are missing, shifted, windows, chunks, and keys that are lost."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from equivcheck.engine.causes.carrier import Core, Edit, spelled_out
from equivcheck.engine.causes.reading import Reading, Rows

__all__ = ["mask_readings"]

_TILES = (8, 16, 32, 64, 128, 256)


def _hiding(hidden: Callable[[Tensor], Tensor]) -> Edit:
    """Hide further keys: probabilities are divided by what is left, as a softmax without these keys gives them."""

    def edit(p: Tensor, core: Core) -> Tensor:
        visible = p > 0
        if core.scale is not None:  # exact where the keys that are left weigh next to nothing
            return spelled_out(core.scores, visible & ~hidden(visible), core.scale)
        kept = torch.where(hidden(visible), torch.zeros_like(p), p)
        sums = p.sum(-1, keepdim=True)
        sink = torch.where((1 - sums).abs() <= 1e-12, torch.zeros_like(sums), 1 - sums)  # it keeps its weight
        left = kept.sum(-1, keepdim=True) + sink
        none = left <= 0
        return torch.where(none, torch.zeros_like(p), kept / torch.where(none, torch.ones_like(left), left))

    return Edit(probabilities=edit)


def _seeing(seen: Callable[[Tensor], Tensor]) -> Edit:
    """See other keys than the original: the softmax is spelled out."""

    def edit(p: Tensor, core: Core) -> Tensor:
        assert core.scale is not None, "the reading needs the scale"
        visible = p > 0
        return spelled_out(core.scores, seen(visible), core.scale)

    return Edit(probabilities=edit)


def _columns(seen: Tensor) -> Tensor:
    return torch.arange(seen.size(-1), device=seen.device)


def _ends(seen: Tensor) -> Tensor:
    """The last key that each query sees: (..., T, 1); -1 if it sees none."""
    return torch.where(seen, _columns(seen), -1).amax(-1, keepdim=True)


def _positions(seen: Tensor) -> Tensor:
    """The position of each query among the keys, aligned at the end: (T, 1)."""
    T, S = seen.shape[-2:]
    return (torch.arange(T, device=seen.device) + (S - T)).unsqueeze(-1)


Keys = Callable[[Tensor], Tensor]
"""Of the keys that each query of the original sees, (..., T, S): the keys that are hidden or seen instead."""


def _later(seen: Tensor) -> Tensor:
    return _columns(seen) > _positions(seen)


def _further(keys: int) -> Keys:
    return lambda seen: seen | ((_columns(seen) <= _ends(seen) + keys) & (_columns(seen) >= _ends(seen)))


def _last(keys: int) -> Keys:
    return lambda seen: _columns(seen) > _ends(seen) - keys


def _window(keys: int) -> Keys:
    return lambda seen: (_columns(seen) > _ends(seen) - keys) & (_columns(seen) <= _ends(seen))


def _outside(keys: int) -> Keys:
    return lambda seen: ~_window(keys)(seen)


def _before_the_chunk(keys: int) -> Keys:
    return lambda seen: _columns(seen) < _positions(seen) // keys * keys


def _away(keys: int) -> Keys:
    return lambda seen: (_columns(seen) - _positions(seen)).abs() >= keys


def _or_first(keys: int) -> Keys:
    return lambda seen: seen | (_columns(seen) < keys)


def _first(keys: int) -> Keys:
    return lambda seen: _columns(seen) < keys


def _from(key: int) -> Keys:
    return lambda seen: _columns(seen) >= key


def mask_readings(rows: Rows) -> Iterator[Reading]:
    yield _sees("mask-missing", "every query sees all keys", torch.ones_like)
    if not rows.causal:
        yield _hides("causal", "each query sees no later key: it is always causal", _later)
    for keys in dict.fromkeys((1, 2, 3, 4, rows.keys - rows.queries)):
        if keys > 0:
            yield _sees(
                "offset", f"each query sees {_counted(keys)} more, later than its last one", _further(keys), keys=keys
            )
            words = f"each query does not see the last {_counted(keys)} that it should see"
            yield _hides("offset", words, _last(keys), keys=-keys)
    yield from _windows(rows)
    yield from _lost_keys(rows)


def _windows(rows: Rows) -> Iterator[Reading]:
    offset = rows.keys - rows.queries
    # a key that the first query beyond the window does not see may have weighed nothing
    sizes = [rows.first + at + d for at in dict.fromkeys((0, offset)) for d in (0, 1, -1, -2, -3, -4, -5, -6)]
    sizes += [size for size in (4, 8, *_TILES) if size <= rows.first + offset]
    sizes += [rows.band + d for d in (-1, 1, -2, 2)] + [rows.band * 2, rows.band // 2]
    for size in dict.fromkeys(sizes):
        if not 0 < size <= rows.keys:
            continue
        words = f"each query sees a window of {_counted(size)}"
        if size > rows.band:
            yield _sees("window", words, _window(size), keys=size)
            continue
        yield _hides("window", words, _outside(size), keys=size)
        yield _hides("chunk", f"keys are seen inside of chunks of {size} alone", _before_the_chunk(size), keys=size)
        if not rows.causal:
            words = f"each query sees the keys less than {size} positions away"
            yield _hides("two-sided-window", words, _away(size), keys=size)
    for size in dict.fromkeys((rows.last + 1, rows.last + 2, rows.last)):
        if 1 < size < rows.keys:
            yield _sees("prefix", f"every query sees the first {_counted(size)}", _or_first(size), keys=size)


def _lost_keys(rows: Rows) -> Iterator[Reading]:
    start = rows.first + rows.keys - rows.queries
    for at in dict.fromkeys((start, rows.first, *(rows.keys - n for n in (1, 2, 3, 4)))):
        if 0 < at < rows.keys:
            words = f"keys from position {at} on are not seen, the last {rows.keys - at}"
            yield _hides("last-keys-lost", words, _from(at), first=at)
    for size in (1, 2, 3, 4):
        verb = "is" if size == 1 else "are"
        yield _hides("first-keys-lost", f"the first {_counted(size)} {verb} not seen", _first(size), keys=size)
    for tile in _TILES:
        whole = rows.keys // tile * tile
        if 0 < whole < rows.keys:
            words = f"keys after the last whole tile of {tile} are not seen"
            yield _hides("tail-of-keys-lost", words, _from(whole), tile=tile)


def _hides(name: str, words: str, keys: Keys, /, **parameters: int) -> Reading:
    return Reading(name, words, _hiding(keys), parameters)


def _sees(name: str, words: str, keys: Keys, /, **parameters: int) -> Reading:
    return Reading(name, words, _seeing(keys), parameters, needs_scale=True)


def _counted(keys: int) -> str:
    return "one key" if keys == 1 else f"{keys} keys"
