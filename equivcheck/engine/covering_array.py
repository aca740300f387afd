"""A covering array over the classes of a space: its rows, and a case of each that is inside the domain."""

import random
from collections.abc import Iterable, Iterator, Sequence, Set
from itertools import combinations, product
from typing import Any

from covertable import make

from equivcheck.cases.case import Case
from equivcheck.cases.factors import keys_of, labels_of
from equivcheck.cases.space import CaseSpace
from equivcheck.engine.case_cost import Bounds
from equivcheck.engine.class_rules import ClassRules, Row
from equivcheck.errors import UsageError

__all__ = ["Classes", "CoveringArray", "classes_of"]

Classes = tuple[tuple[str, str], ...]

_TRIES, _FEW_TRIES, _TRIES_OF_TRIPLES = 200, 12, 40
_TILE = 16  # tiles of kernels begin at multiples of it


def classes_of(entries: Iterable[Sequence[str]]) -> Classes:
    """A pair or a triple of classes, each with its factor, of what a report or a message has of it."""
    return tuple((name, label) for name, label in entries)


class CoveringArray:
    """A covering array over the classes of a space."""

    def __init__(
        self, space: CaseSpace, bounds: tuple[Bounds, Bounds], *, has_weights: bool, seed: int, strength: int = 2
    ) -> None:
        """An array over the classes of the space, within the bounds of most cases, and those of any.

        Args:
            space: The space of the cases.
            bounds: The bounds on the cost of most cases, and of any.
            has_weights: Whether the pair has weights.
            seed: Of the rows, and of the sizes within a class.
            strength: 2 for every pair of classes, 3 for every triple.
        """
        self.space, self.strength, self._seed = space, strength, seed
        self.rules = ClassRules(space, bounds, has_weights=has_weights)
        self.factors = self.rules.factors
        self._names = [factor.name for factor in self.factors]
        self._most_chunks = space.max_chunks
        self._random = random.Random(seed)

    def made(self) -> dict[str, Any]:
        """The ids of the cases, and the combinations that no case of the domain was found for."""
        cases: list[Case] = []
        outside = set[Classes]()
        for size in range(2, self.strength + 1):
            self._meet(size, cases, outside)
        return {
            "cases": [case.id for case in dict.fromkeys(cases)],
            "outside": [[list(one) for one in classes] for classes in sorted(outside)],
        }

    def _meet(self, size: int, cases: list[Case], outside: set[Classes]) -> None:
        """Add cases until they meet every combination of so many classes, or none is found for the rest."""
        unmet = self._wanted(size, outside)
        for case in cases:
            unmet.difference_update(self._combined(labels_of(case, self.factors), size))
        for row in self._rows() if size == 2 else ():
            worth = len(unmet.intersection(self._combined(row, size))) >= len(self.factors)
            if worth and (made := self._case(row)) is not None:
                cases.append(made)
                unmet.difference_update(self._combined(row, size))
        for wanted in sorted(unmet):
            if wanted not in unmet:
                continue
            made = self._meeting(dict(wanted), unmet, size)
            if made is None:
                outside.add(wanted)
            else:
                cases.append(made)
                unmet.difference_update(self._combined(labels_of(made, self.factors), size))

    def _combined(self, labels: Row, size: int) -> Iterator[Classes]:
        """The combinations of so many classes of a row, each with its factor."""
        return combinations([(name, labels[name]) for name in self._names if name in labels], size)

    def _wanted(self, size: int, outside: Set[Classes]) -> set[Classes]:
        """The combinations that cases can meet, and that do not cost too much."""
        wanted = set[Classes]()
        for factors in combinations(self.factors, size):
            names = [factor.name for factor in factors]
            for labels in product(*(factor.classes for factor in factors)):
                classes = tuple(zip(names, labels, strict=True))
                # what two of the classes do not meet, three do not
                lost = any(fewer in outside for fewer in combinations(classes, size - 1))
                if not lost and self.rules.allowed(dict(classes)):
                    wanted.add(classes)
        return wanted

    def _rows(self) -> Iterator[Row]:
        """The rows of an array of pairs in which every row is possible.

        The library is not given the rules: with them it takes ten times as long. A row that breaks one is mended, and
        the pairs that are lost so are met by rows of their own. Triples are met by `_meeting` alone: the library takes
        ten times as long for them, too, and makes about as many rows.
        """
        if len(self.factors) < 2:
            return
        classes = {name: list(of) for name, of in self.rules.classes.items()}
        for row in make(classes, strength=2, salt=str(self._seed)):
            yield self._mended(row)

    def _mended(self, row: Row, kept: Set[str] = frozenset()) -> Row:
        """The row with as few other classes as were found to be needed; those of the `kept` factors stay."""
        names = [name for name in self._names if name not in kept]
        for changes in range(_TRIES * len(names)):
            changed = self._random.sample(names, min(len(names), -(-changes // _TRIES)))
            mended = dict(row) | {name: self._random.choice(list(self.rules.classes[name])) for name in changed}
            if self.rules.allowed(mended):
                return mended
        return row

    def _grouped(self, row: Row, share: float) -> int:
        """A number of heads that can be in the groups of a row."""
        heads = self.rules.classes["heads"][row["heads"]] if "heads" in row else range(1, 2**5)
        able = [n for n in heads if self.rules.kv_heads(n, row["groups"])]
        return int(self._choose(able[: max(1, _part(able, share) - 1)]))

    def _meeting(self, wanted: Row, unmet: set[Classes], size: int) -> Case | None:
        """A case of these classes, of those tried one that meets most unmet combinations; None if none was found."""
        rows = [self._with(wanted) for _ in range(_TRIES if size == 2 else _TRIES_OF_TRIPLES)]
        rows = [row for row in rows if self.rules.allowed(row)]
        rows.sort(key=lambda row: len(unmet.intersection(self._combined(row, size))), reverse=True)
        return self._first_case(rows) or self._first_case(self._rarely_met(wanted))

    def _with(self, wanted: Row) -> Row:
        """A row of some classes and random other ones."""
        return {f.name: wanted.get(f.name) or self._random.choice(list(f.classes)) for f in self.factors}

    def _rarely_met(self, wanted: Row) -> Iterator[Row]:
        """Rows of classes that go with few others: the most usual ones, then random ones, mended."""
        kept = frozenset(wanted)
        # the first class of each other factor is the one that most domains have
        yield self._mended({f.name: wanted.get(f.name) or next(iter(f.classes)) for f in self.factors}, kept)
        for _ in range(_FEW_TRIES):
            yield self._mended(self._with(wanted), kept)

    def _first_case(self, rows: Iterable[Row]) -> Case | None:
        cases = (self._case(row, tries=_FEW_TRIES) for row in rows if self.rules.allowed(row))
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
            values = self.rules.classes[name][row[name]] if name in row else (default,)
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
        if not self.rules.within(batch, heads, seq_len, keys or seq_len, head_size, layers, usual=usual):
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
                kv_heads=0 if groups == "one" else self.rules.kv_heads(heads, groups),
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
