"""Cases of a space inside of a domain: each value that is drawn leaves a way to the end open, so that few are refused."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from equivcheck.cases.case import Case
from equivcheck.cases.domain import EVERYWHERE, Domain
from equivcheck.cases.domain_fields import with_causes
from equivcheck.cases.domain_grammar import Node
from equivcheck.cases.domain_tables import COSTLY, STRICT, WIDE, Tables
from equivcheck.cases.space import CaseSpace
from equivcheck.cases.words import LAYOUTS, REGIMES
from equivcheck.numerics.dtypes import DTYPES

__all__ = ["Solver", "allowed_values", "is_possible", "nearest"]

_MOST_TRIED = 20_000  # values, before an open question counts as possible
_NEAREST, _TIMES_AS_FAR = (
    8,
    3,
)  # values beyond a limit that gives way, and how far they are as a multiple of the nearest
_LEVELS = ((STRICT, STRICT), (STRICT, WIDE), (WIDE, WIDE), (STRICT, COSTLY), (COSTLY, COSTLY))
_DEPENDS = ("seq_len", "n_head", "head_size", "n_layer", "training", "is_causal")
"""The names that the tables of others depend on."""


class Solver:
    """The values that a domain leaves in the tables of a space, name by name in the order of drawing."""

    def __init__(self, space: CaseSpace) -> None:
        """Solve nothing yet."""
        self.space = space
        self.domain: Domain = space.domain or EVERYWHERE
        self.tables = Tables(space, self.domain)
        self.order = self.tables.order
        self._names = {id(node): with_causes(node.names) for node in self.domain.conditions}
        self._bound = frozenset().union(*self._names.values())
        self._left: dict[Any, Sequence[Any]] = {}
        self._possible: dict[Any, bool] = {}
        self._tried = 0

    def left(self, name: str, values: Mapping[str, Any], *, most: int = COSTLY) -> Sequence[Any]:
        """The values of a name that the domain leaves: within the limits, else the nearest beyond.

        Args:
            name: The name.
            values: The values of the names before it.
            most: The greatest level of tables.
        """
        key = (name, most, *(values.get(other) for other in self._bearing(name)))
        if key not in self._left:
            self._left[key] = self._solved(name, values, most)
        return self._left[key]

    def is_possible(self, most: int = COSTLY) -> bool:
        """Whether any case of the space is inside, with tables up to a level."""
        self._tried = 0
        return any(self.possible({}, level) for level in range(most + 1))

    def case(self, values: Mapping[str, Any], **more: Any) -> Case:
        """The case of these values and other fields."""
        fields = dict(values) | more
        for name, default in (("kv_len", "seq_len"), ("kv_heads", "n_head"), ("value_size", "head_size")):
            fields[name] = 0 if fields[name] == fields[default] else fields[name]
        return Case(**fields)

    def first(self) -> Case | None:
        """The case of the first value of each table; None if there is no way to one."""
        values: dict[str, Any] = {}
        for name in self.order:
            left = self.left(name, values)
            if not left:
                return None
            values[name] = left[0]
        return self.case(values)

    def _bearing(self, name: str) -> Iterator[str]:
        """The names of which the values of another one can depend."""
        return (other for other in self.order if other != name and (other in _DEPENDS or other in self._bound))

    def _solved(self, name: str, values: Mapping[str, Any], most: int) -> Sequence[Any]:
        self._tried = 0
        if name not in self._bound and name not in _DEPENDS:
            return self.tables.of(name, values, STRICT)
        for here, open_level in _LEVELS:
            if open_level > most:
                continue
            table = self.tables.of(name, values, here)
            allowed: dict[Any, bool] = {}
            for value in table:
                if value not in allowed:
                    allowed[value] = self.possible({**values, name: value}, open_level)
            left = [value for value in table if allowed[value]]
            if left and here == COSTLY and name in ("n_head", "batch_size"):
                return left[:1]  # no more than must be
            if left and here != STRICT:
                return self._nearest(left, self.tables.of(name, values, STRICT))
            if left:
                return left
        return ()

    @staticmethod
    def _nearest(left: Sequence[Any], strict: Sequence[Any]) -> Sequence[Any]:
        low, high = min(strict), max(strict)
        apart = {value: max(0, low - value, value - high) for value in left}
        most = _TIMES_AS_FAR * min(apart.values())
        return sorted(sorted((value for value in left if apart[value] <= most), key=apart.__getitem__)[:_NEAREST])

    def possible(self, values: Mapping[str, Any], level: int) -> bool:
        """Whether these values can be completed by tables of a level to a case inside."""
        known = self.domain.known(values)
        conditions = []
        for node in self.domain.conditions:
            value = node.value(known)
            if value is False:
                return False
            if value is None:
                conditions.append(node)
        return all(self._has_way(group, known, level) for group in self._groups(conditions, known))

    def _has_way(self, group: Sequence[Node], known: Mapping[str, Any], level: int) -> bool:
        names = set().union(*(self._names[id(node)] for node in group))
        key = (tuple(id(node) for node in group), level, *(known.get(name) for name in sorted({*names, *_DEPENDS})))
        if key not in self._possible:
            opened = [name for name in self.order if name in names and name not in known]
            self._possible[key] = self._completed(group, dict(known), opened, level)
        return self._possible[key]

    def _completed(self, group: Sequence[Node], known: dict[str, Any], opened: Sequence[str], level: int) -> bool:
        if not opened:
            return True  # what no table has stays open, such as the vocabulary of an attention
        name, *rest = opened
        if name in ("n_layer", "vocab_size") and not max(self.space.n_layers):
            return self._completed(group, known, rest, level)
        for value in dict.fromkeys(self.tables.of(name, known, level)):
            self._tried += 1
            if self._tried > _MOST_TRIED:
                return True
            after = {**known, name: value}
            if all(node.value(after) is not False for node in group) and self._completed(group, after, rest, level):
                return True
        return False

    def _groups(self, conditions: Sequence[Node], known: Mapping[str, Any]) -> list[list[Node]]:
        """The conditions that share an open name, together."""
        groups: list[tuple[set[str], list[Node]]] = []
        for node in conditions:
            names = {name for name in self._names[id(node)] if name not in known}
            touching = [group for group in groups if group[0] & names]
            groups = [group for group in groups if not group[0] & names]
            merged = [other for _, nodes in touching for other in nodes]
            groups.append((names.union(*(group[0] for group in touching)), [*merged, node]))
        return [nodes for _, nodes in groups]


def is_possible(space: CaseSpace, *, most: int = COSTLY) -> bool:
    """Whether any case of a space is in its domain, as far as the expression of the domain tells.

    Args:
        space: The space.
        most: How far limits may give way: STRICT, WIDE or COSTLY of `domain_tables`.
    """
    return Solver(space).is_possible(most)


def allowed_values(space: CaseSpace, field: str) -> list[Any]:
    """The different values of a name in the tables of a space that its domain leaves, in the order of the table."""
    return list(dict.fromkeys(Solver(space).left(field, {})))


def nearest(case: Case, domain: Domain, **more: Any) -> Case | None:
    """The case itself if it is inside of a domain, else one near it; None if there is none.

    Args:
        case: The case.
        domain: The domain.
        more: Further fields of the space that is searched, such as `features`.
    """
    if domain.allows(case):
        return case
    features = frozenset({"lengths", "causal lengths"} if case.kv_len else ())
    point = CaseSpace(
        min_seq_len=case.seq_len,
        max_seq_len=case.seq_len,
        min_batch_size=case.batch_size,
        max_batch_size=case.batch_size,
        min_heads=case.n_head,
        max_heads=case.n_head,
        head_sizes=(case.head_size,),
        dtypes=(case.dtype,),
        regimes=(case.regime,),
        layouts=(case.layout,),
        training=case.training,
        rates=(case.attn_pdrop,),
        train_rates=(case.attn_pdrop,),
        n_layers=(case.n_layer,),
        vocab_sizes=(case.vocab_size,),
        is_causal=(case.is_causal,),
        scales=(case.scale,),
        masks=(case.mask,),
        features=features,
        domain=domain,
    ).but(**more)
    for one in (point, point.but(**_any_words(case, more))):
        other = Solver(one).first()
        if other is not None and domain.accepts(other):
            return other.but(seed=case.seed)
    return None


def _any_words(case: Case, more: Mapping[str, Any]) -> dict[str, Any]:
    """Limits with every word, that of the case first."""
    words = {
        "dtypes": (case.dtype, *DTYPES),
        "regimes": (case.regime, *REGIMES),
        "layouts": (case.layout, *LAYOUTS),
        "training": None,
        "rates": (case.attn_pdrop, 0.0, 0.1, 0.5),
        "train_rates": (case.attn_pdrop, 0.0, 0.1, 0.5),
    }
    return {name: value for name, value in words.items() if name not in more}
