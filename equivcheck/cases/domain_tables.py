"""The values of each name that a case of a space can have, where some other values are known."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from equivcheck.cases.domain import Domain
from equivcheck.cases.domain_fields import with_causes
from equivcheck.cases.features import mask_features
from equivcheck.cases.space import CaseSpace, sizes

__all__ = ["COSTLY", "STRICT", "WIDE", "Tables"]

STRICT, WIDE, COSTLY = 0, 1, 2
"""Within the limits; the nearest values beyond, too; and at any cost up to `_MOST_SCORES`."""

_TYPICAL: Mapping[str, tuple[int, ...]] = {"n_head": (4, 6, 8, 12, 16, 32), "head_size": (16, 32, 64, 80, 96, 128)}
"""Sizes of models in use: a condition such as `n_head * head_size == 768` binds them together."""
_POWERS = tuple(2**k for k in range(13))
_AROUND = 130  # values beyond a number of the domain
_LARGEST = 2**15
_MOST_SCORES = 2**28
_WIDEST = 512  # channels of all heads
_GROUPS = (1, 2, 3)


class Tables:
    """The tables of one space, each in ascending order or with the simplest value first."""

    def __init__(self, space: CaseSpace, domain: Domain) -> None:
        """Make no table yet."""
        self.space = space
        numbers = {int(c) for node in domain.conditions for c in node.constants if 0 < c <= _LARGEST}
        self._near = sorted({c + step for c in numbers for step in (-1, 0, 1) if c + step > 0})
        self._beyond = sorted({c + step for c in numbers for step in range(_AROUND)})
        self._together = frozenset().union(*(node.names for node in domain.conditions if node.equates))
        self._named = with_causes(name for node in domain.conditions for name in node.names)

    @property
    def order(self) -> tuple[str, ...]:
        """The names in the order in which values are drawn."""
        drawn = [*_SIZES, "n_layer", "vocab_size", "training", "is_causal", "kv_len", "value_size", "mask", "kv_heads"]
        return ("dtype", *drawn, "attn_pdrop", "resid_pdrop", "regime", "layout", "scale")

    def of(self, name: str, values: Mapping[str, Any], level: int) -> Sequence[Any]:
        """The table of a name.

        Args:
            name: The name.
            values: The values that are known; those that the table depends on may be missing.
            level: STRICT, WIDE or COSTLY.
        """
        space = self.space
        in_training = values.get("training", bool(space.training))
        match name:
            case "dtype":
                return space.dtypes
            case "seq_len" | "n_head" | "batch_size" | "head_size" | "block_size":
                strict = self._sizes(name, values)
                if level == STRICT or name in space.pinned:
                    return strict
                return self._wider(name, values, strict, level)
            case "n_layer":
                return space.n_layers
            case "vocab_size":
                if not values.get("n_layer", max(space.n_layers)):
                    return (1,)
                return space.vocab_sizes if level == STRICT else _ascending(space.vocab_sizes, self._near)
            case "training":
                return (False, True) if space.training is None else (space.training,)
            case "is_causal":
                return space.is_causal
            case "kv_len":
                return self._keys(values, level)
            case "value_size":
                return self._values(values, level)
            case "mask":
                return self._masks(values)
            case "kv_heads":
                heads = values.get("n_head", 1)
                groups: Sequence[int] = range(1, heads + 1) if level else _GROUPS
                groups = groups if "heads" in space.features else (1,)
                return [heads // group for group in groups if heads % group == 0]
            case "attn_pdrop" | "resid_pdrop":
                return space.train_rates if in_training else space.rates
            case "regime":
                return space.regimes
            case "layout":
                return space.layouts
            case "scale":
                return space.scales
        return ()

    def cost(self, values: Mapping[str, Any]) -> int:
        """The scores of a case of which some values are known; 0 for one head of one sample, which is never too many."""
        length = int(values.get("seq_len", self.space.min_seq_len))
        slices = int(values.get("batch_size", 1) * values.get("n_head", 1))
        return slices * length * length if slices > 1 else 0

    def _sizes(self, name: str, values: Mapping[str, Any]) -> Sequence[int]:
        """The sizes within the limits, as `strategies` draws them without a domain."""
        space = self.space
        length = values.get("seq_len", space.min_seq_len)
        slices = max(1, space.max_scores // max(1, length * length))
        heads = values.get("n_head", space.min_heads)
        table: Sequence[int]
        match name:
            case "seq_len":
                most = space.max_seq_len
                return sizes(most, typical=min(48, most), smallest=min(most, space.min_seq_len))
            case "n_head":
                most = max(space.min_heads, min(space.max_heads, slices))
                table = sizes(most, typical=4, smallest=space.min_heads)
                if "heads" in space.features:
                    table = sorted([*table, *(heads * group for heads in table for group in _GROUPS[1:])])
            case "batch_size":
                most = max(space.min_batch_size, min(space.max_batch_size, slices // heads))
                table = sizes(most, typical=3, smallest=space.min_batch_size)
            case "head_size":
                narrowest = space.min_head_size if space.max_chunks is None else -(-length // space.max_chunks)
                widest = max(narrowest, min(space.max_head_size, _WIDEST // heads))
                table = space.head_sizes or sizes(widest, typical=24, smallest=narrowest)
            case _:
                return [length + spare for spare in (0, 0, 1, 7, 64)]
        if name in self._together and name not in space.pinned:
            typical = [size for size in _TYPICAL.get(name, ()) if name != "n_head" or size <= slices]
            return _ascending(table, [size for size in typical if size not in table], once=False)
        return table

    def _wider(self, name: str, values: Mapping[str, Any], strict: Sequence[int], level: int) -> Sequence[int]:
        length = values.get("seq_len", 1)
        if name == "block_size":
            return _ascending(strict, (size for size in (*self._beyond, *_POWERS) if size >= length))
        if name not in self._named:
            return strict
        span = range(1, 1025 if name == "seq_len" else 65 if name == "n_head" else 257)
        more = [size for size in _ascending(span, _POWERS, self._beyond) if size <= _LARGEST]
        if name in ("n_head", "batch_size", "seq_len"):
            most = self.space.max_scores if level == WIDE else _MOST_SCORES
            more = [size for size in more if self.cost({**values, name: size}) <= most]
        return _ascending(strict, more)

    def _keys(self, values: Mapping[str, Any], level: int) -> Sequence[int]:
        length = values.get("seq_len", self.space.min_seq_len)
        needed = "causal lengths" if values.get("is_causal", True) else "lengths"
        if needed not in self.space.features:
            return (length,)
        near = (length + 1, 2 * length, 1, length, length + 17, length + 2, length // 2 + 1)
        if length == 1:
            near = (2, 64, 1, 1, 18, 3, 33)
        strict = (length, *near)
        if level == STRICT:
            return strict
        return (length, *_ascending(near, range(1, 513), _POWERS, (k * length for k in range(2, 5)), self._beyond))

    def _values(self, values: Mapping[str, Any], level: int) -> Sequence[int]:
        size = values.get("head_size", self.space.min_head_size)
        if "value size" not in self.space.features:
            return (size,)
        return (size, size, 1, 5, 24) if level == STRICT else (size, *_ascending(range(1, 129), _POWERS, self._beyond))

    def _masks(self, values: Mapping[str, Any]) -> Sequence[str]:
        space = self.space
        causal = values.get("is_causal", True)
        able = [m for m in space.masks if m and mask_features(m, is_causal=causal) <= space.features]
        none = [""] * (1 + len(able) // 2) if "" in space.masks or not able else []
        return (*none[:1], *able, *none[1:])


_SIZES = ("seq_len", "n_head", "batch_size", "head_size", "block_size")


def _ascending(*tables: Iterable[int], once: bool = True) -> list[int]:
    values = [value for table in tables for value in table]
    return sorted(set(values)) if once else sorted(values)
