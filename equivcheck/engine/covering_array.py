"""A covering array over the classes of a space: its rows, and a case of each that is inside the domain."""

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from itertools import combinations
from typing import Any

from covertable import make

from equivcheck.cases.case import Case
from equivcheck.cases.factors import MANY, MOST_FEW, SIGNED_SCALES, causal_label, factors_of, keys_of, labels_of
from equivcheck.cases.features import mask_features
from equivcheck.cases.space import CaseSpace
from equivcheck.engine.case_cost import Bounds
from equivcheck.errors import UsageError
from equivcheck.numerics.dtypes import WIDE

__all__ = ["COSTING", "RULED", "ClassPair", "CoveringArray", "class_pair"]

Row = Mapping[str, str]
ClassPair = tuple[tuple[str, str], tuple[str, str]]

COSTING = frozenset({"batch", "length", "heads", "head size", "groups", "keys", "layers"})
"""The factors whose classes decide whether a row is affordable."""
RULED = frozenset({"length", "heads", "head size", "dtype", "causal", "scale", "keys", "groups", "mask"})
"""The factors whose classes decide whether a row is possible."""

_LEAST_HEADS = {"2 to one": 4, "4 to one": 8, "8 to one": 16, "all to one": 3}
_TRIES, _FEW_TRIES = 200, 12
_TILE = 16  # tiles of kernels begin at multiples of it


def class_pair(a: Sequence[str], b: Sequence[str]) -> ClassPair:
    """Two classes, each with its factor."""
    return (a[0], a[1]), (b[0], b[1])


class CoveringArray:
    """A covering array over the classes of a space."""

    def __init__(self, space: CaseSpace, bounds: tuple[Bounds, Bounds], *, has_weights: bool, seed: int) -> None:
        """An array over the classes of the space, within the bounds of most cases, and those of any."""
        self.space, self.bounds, self.has_weights, self.seed = space, bounds, has_weights, seed
        self.factors = factors_of(space, has_weights=has_weights)
        self._names = [factor.name for factor in self.factors]
        self._classes = {factor.name: factor.classes for factor in self.factors}
        self._most_chunks = space.max_chunks
        self._random = random.Random(seed)

    def made(self) -> dict[str, Any]:
        """The ids of the cases, and the pairs that no case of the domain was found for."""
        wanted = self._wanted()
        cases: list[Case] = []
        met: set[ClassPair] = set()
        for row in self._rows():
            worth = len((wanted - met) & set(self.pairs(row))) >= len(self.factors)
            if worth and (case := self._case(row)) is not None:
                cases.append(case)
                met.update(self.pairs(row))
        outside = []
        for pair in sorted(wanted - met):
            if pair in met:
                continue
            made = self._meeting(dict(pair), wanted - met)
            if made is None:
                outside.append([list(pair[0]), list(pair[1])])
            else:
                cases.append(made)
                met.update(self.pairs(labels_of(made, self.factors)))
        return {"cases": [case.id for case in dict.fromkeys(cases)], "outside": outside}

    def _wanted(self) -> set[ClassPair]:
        """The pairs that cases can meet, and that do not cost too much."""
        rows = ({a.name: x, b.name: y} for a, b in combinations(self.factors, 2) for x in a.classes for y in b.classes)
        return {pair for row in rows if self._allowed(row) for pair in self.pairs(row)}

    def pairs(self, labels: Row) -> Iterator[ClassPair]:
        """The pairs of classes of a row."""
        known = [name for name in self._names if name in labels]
        return (class_pair((a, labels[a]), (b, labels[b])) for a, b in combinations(known, 2))

    def _rows(self) -> Iterator[Row]:
        """The rows of an array in which every row is possible.

        The library is not given the rules: with them it takes ten times as long. A row that breaks one is mended, and
        the pairs that are lost so are met by rows of their own.
        """
        if len(self.factors) < 2:
            return
        classes = {name: list(of) for name, of in self._classes.items()}
        for row in make(classes, strength=2, salt=str(self.seed)):
            yield self._mended(row)

    def _mended(self, row: Row, kept: Set[str] = frozenset()) -> Row:
        """The row with as few other classes as were found to be needed; those of the `kept` factors stay."""
        names = [name for name in self._names if name not in kept]
        for changes in range(_TRIES * len(names)):
            changed = self._random.sample(names, min(len(names), -(-changes // _TRIES)))
            mended = dict(row) | {name: self._random.choice(list(self._classes[name])) for name in changed}
            if self._allowed(mended):
                return mended
        return row

    def _allowed(self, row: Row) -> bool:
        return self.affordable(row) and self.possible(row)

    def _least(self, row: Row, name: str) -> int:
        return int(min(self._classes[name][row[name]])) if name in row else 1

    def affordable(self, row: Row) -> bool:
        """Whether the cheapest case of these classes is within the bounds on cost."""
        batch, length, size = (self._least(row, name) for name in ("batch", "length", "head size"))
        heads = max(self._least(row, "heads"), _LEAST_HEADS.get(row.get("groups", ""), 1))
        keys = {"many to a few queries": MANY, "twice and more": 2 * length}.get(row.get("keys", ""), length)
        layers = self._least(row, "layers") if "layers" in row else min(self.space.n_layers)
        return self._within(batch, heads, length, keys, size, layers, usual=False)

    def _within(self, batch: int, heads: int, queries: int, keys: int, size: int, layers: int, *, usual: bool) -> bool:
        return self.bounds[0 if usual else 1].allow(
            batch=batch,
            heads=heads,
            queries=queries,
            keys=keys,
            head_size=size,
            layers=layers,
            has_weights=self.has_weights,
        )

    def possible(self, row: Row) -> bool:
        """Whether a case can have these classes: masks, numbers of keys and groups of heads go with some others only."""
        causal = [value for value in set(self.space.is_causal) if row.get("causal") in (None, causal_label(value))]
        if "scale" in row and self._classes["scale"][row["scale"]][0] in SIGNED_SCALES:
            causal = [value for value in causal if not value]
            if not causal or row.get("dtype", WIDE[0]) not in WIDE:
                return False
        mask = row.get("mask", "none")
        if mask != "none" and not any(mask_features(mask, is_causal=c) <= self.space.features for c in causal):
            return False
        keys = row.get("keys", "as queries")
        if not causal:
            return False
        length = self._classes["length"][row["length"]] if "length" in row else range(1, 2**10)
        if keys != "as queries":
            if not any(("causal lengths" if c else "lengths") in self.space.features for c in causal):
                return False
            if keys in ("fewer", "few more") and max(length) < 2:
                return False
            if keys == "many to a few queries" and min(length) > MOST_FEW:
                return False
        if self._most_chunks is not None and "head size" in row:
            largest = max(self._classes["head size"][row["head size"]])
            return min(length) <= self._most_chunks * largest and self._goes_with_groups(row)
        return self._goes_with_groups(row)

    def _goes_with_groups(self, row: Row) -> bool:
        """Whether the heads of a row can be in its groups."""
        groups = row.get("groups", "one")
        if groups == "one" or "heads" not in row:
            return True
        return any(self._kv_heads(heads, groups) for heads in self._classes["heads"][row["heads"]])

    def _kv_heads(self, heads: int, groups: str) -> int:
        """The heads of keys in such groups; 0 if there is no such number."""
        group = self._classes["groups"][groups][0]
        if not group:
            return 1 if heads > 1 and heads not in (2, 4, 8) else 0
        return heads // group if heads % group == 0 and (heads > group or group == 1) else 0

    def _grouped(self, row: Row, share: float) -> int:
        """A number of heads that can be in the groups of a row."""
        heads = self._classes["heads"][row["heads"]] if "heads" in row else range(1, 2**5)
        able = [n for n in heads if self._kv_heads(n, row["groups"])]
        return int(self._choose(able[: max(1, _part(able, share) - 1)]))

    def _meeting(self, pair: Row, unmet: Set[ClassPair]) -> Case | None:
        """A case of two classes, of those tried one that meets most unmet pairs; None if none was found."""
        rows = [self._with(pair) for _ in range(_TRIES)]
        rows = [row for row in rows if self._allowed(row)]
        rows.sort(key=lambda row: len(unmet & set(self.pairs(row))), reverse=True)
        return self._first_case(rows) or self._first_case(self._rarely_met(pair))

    def _with(self, pair: Row) -> Row:
        """A row of two classes and random other ones."""
        return {f.name: pair.get(f.name) or self._random.choice(list(f.classes)) for f in self.factors}

    def _rarely_met(self, pair: Row) -> Iterator[Row]:
        """Rows of two classes that go with few others: the most usual ones, then random ones, mended."""
        kept = frozenset(pair)
        # the first class of each other factor is the one that most domains have
        yield self._mended({f.name: pair.get(f.name) or next(iter(f.classes)) for f in self.factors}, kept)
        for _ in range(_FEW_TRIES):
            yield self._mended(self._with(pair), kept)

    def _first_case(self, rows: Iterable[Row]) -> Case | None:
        cases = (self._case(row, tries=_FEW_TRIES) for row in rows if self._allowed(row))
        return next((case for case in cases if case is not None), None)

    def _case(self, row: Row, *, tries: int = _TRIES) -> Case | None:
        """A case of the classes of a row, inside the domain and within the bounds on cost; None if none was found."""
        for attempt in range(tries):
            # sizes within the usual bound first; then up to the greatest bound, from ever smaller parts of the classes
            share = min(1.0, 2 * (tries - attempt - 1) / tries)
            case = self._tried(row, share, usual=attempt < tries // 2)
            inside = case is not None and (self.space.domain is None or self.space.domain.allows(case))
            if case is not None and inside and labels_of(case, self.factors) == dict(row):
                return case
        return None

    def _tried(self, row: Row, share: float, *, usual: bool) -> Case | None:
        def one(name: str, default: Any, least: int = 0) -> Any:
            values = self._classes[name][row[name]] if name in row else (default,)
            if least:
                values = range(max(least, values[0]), max(least, values[-1]) + 1)
            return self._choose(values[: _part(values, share)] if isinstance(values, range) else values)

        groups = row.get("groups", "one")
        batch, seq_len = one("batch", 1), one("length", 1)
        heads = one("heads", 1) if groups == "one" else self._grouped(row, share)
        training, rate, other_rate = one("mode", (bool(self.space.training), 0.0, 0.0))
        layers = one("layers", max(self.space.n_layers))
        keys = keys_of(row.get("keys", "as queries"), seq_len, self._choose)
        head_size = one("head size", 16, least=1 if self._most_chunks is None else -(-seq_len // self._most_chunks))
        if not self._within(batch, heads, seq_len, keys or seq_len, head_size, layers, usual=usual):
            return None
        try:
            return Case(
                batch_size=batch,
                seq_len=seq_len,
                n_head=heads,
                head_size=head_size,
                block_size=seq_len + one("block size", 0),
                dtype=one("dtype", self.space.dtypes[0]),
                training=training,
                attn_pdrop=rate,
                resid_pdrop=other_rate,
                regime=one("regime", self.space.regimes[0]),
                layout=one("layout", self.space.layouts[0]),
                seed=self._random.randrange(2**16),
                n_layer=layers,
                vocab_size=one("vocabulary", max(self.space.vocab_sizes)) if layers else 1,
                tokens=self._random.choice(("random", "text")) if layers else "random",
                is_causal=one("causal", self.space.is_causal[0]),
                scale=one("scale", self.space.scales[0]),
                kv_len=keys,
                kv_heads=0 if groups == "one" else self._kv_heads(heads, groups),
                value_size=one("value size", 0),
                mask=one("mask", ""),
            )
        except UsageError:
            return None

    def _choose(self, values: Sequence[Any]) -> Any:
        """One of the values; of many sizes one beside the edge of a tile as often as not."""
        if isinstance(values, range) and len(values) > _TILE and self._random.random() < 1 / 2:
            return self._random.choice([n for n in values if (n + 1) % _TILE <= 2])
        return self._random.choice(values)


def _part(values: Sequence[Any], share: float) -> int:
    """How many of the smallest values make this share of them; two at least."""
    return max(2, round(len(values) * share))
