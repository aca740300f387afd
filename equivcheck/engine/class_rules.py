"""Which classes of a case's factors can go together, and which of them cost too much together."""

from collections.abc import Mapping

from equivcheck.cases.factors import MANY, MOST_FEW, SIGNED_SCALES, causal_label, factors_of
from equivcheck.cases.features import mask_features
from equivcheck.cases.space import CaseSpace
from equivcheck.engine.case_cost import Bounds
from equivcheck.numerics.dtypes import WIDE

__all__ = ["COSTING", "RULED", "ClassRules", "Row"]

Row = Mapping[str, str]

COSTING = frozenset({"batch", "length", "heads", "head size", "groups", "keys", "layers"})
"""The factors whose classes decide whether a row is affordable."""
RULED = frozenset({"length", "heads", "head size", "dtype", "causal", "scale", "keys", "groups", "mask"})
"""The factors whose classes decide whether a row is possible."""

_LEAST_HEADS = {"2 to one": 4, "4 to one": 8, "8 to one": 16, "all to one": 3}


class ClassRules:
    """The rules of the classes of a space.

    Attributes:
        factors: The factors of its cases.
        classes: Name of a factor -> label of a class -> its values.
    """

    def __init__(self, space: CaseSpace, bounds: tuple[Bounds, Bounds], *, has_weights: bool) -> None:
        """The rules of a space.

        Args:
            space: The space of the cases.
            bounds: The bounds on the cost of most cases, and of any.
            has_weights: Whether the pair has weights.
        """
        self._space, self._bounds, self._has_weights = space, bounds, has_weights
        self.factors = factors_of(space, has_weights=has_weights)
        self.classes = {factor.name: factor.classes for factor in self.factors}
        self._most_chunks = space.max_chunks

    def allowed(self, row: Row) -> bool:
        """Whether a case can have these classes, and is affordable."""
        return self.affordable(row) and self.possible(row)

    def _least(self, row: Row, name: str) -> int:
        return int(min(self.classes[name][row[name]])) if name in row else 1

    def affordable(self, row: Row) -> bool:
        """Whether the cheapest case of these classes is within the bounds on cost."""
        batch, length, size = (self._least(row, name) for name in ("batch", "length", "head size"))
        heads = max(self._least(row, "heads"), _LEAST_HEADS.get(row.get("groups", ""), 1))
        keys = {"many to a few queries": MANY, "twice and more": 2 * length}.get(row.get("keys", ""), length)
        layers = self._least(row, "layers") if "layers" in row else min(self._space.n_layers)
        return self.within(batch, heads, length, keys, size, layers, usual=False)

    def within(self, batch: int, heads: int, queries: int, keys: int, size: int, layers: int, *, usual: bool) -> bool:
        """Whether a case of these sizes is within the bound of most cases, or of any."""
        return self._bounds[0 if usual else 1].allow(
            batch=batch,
            heads=heads,
            queries=queries,
            keys=keys,
            head_size=size,
            layers=layers,
            has_weights=self._has_weights,
        )

    def possible(self, row: Row) -> bool:
        """Whether a case can have these classes: masks, numbers of keys and groups of heads go with some others only."""
        causal = [value for value in set(self._space.is_causal) if row.get("causal") in (None, causal_label(value))]
        if "scale" in row and self.classes["scale"][row["scale"]][0] in SIGNED_SCALES:
            causal = [value for value in causal if not value]
            if not causal or row.get("dtype", WIDE[0]) not in WIDE:
                return False
        mask = row.get("mask", "none")
        if mask != "none" and not any(mask_features(mask, is_causal=c) <= self._space.features for c in causal):
            return False
        keys = row.get("keys", "as queries")
        if not causal:
            return False
        length = self.classes["length"][row["length"]] if "length" in row else range(1, 2**10)
        if keys != "as queries":
            if not any(("causal lengths" if c else "lengths") in self._space.features for c in causal):
                return False
            if keys in ("fewer", "few more") and max(length) < 2:
                return False
            if keys == "many to a few queries" and min(length) > MOST_FEW:
                return False
        if self._most_chunks is not None and "head size" in row:
            largest = max(self.classes["head size"][row["head size"]])
            return min(length) <= self._most_chunks * largest and self._goes_with_groups(row)
        return self._goes_with_groups(row)

    def _goes_with_groups(self, row: Row) -> bool:
        """Whether the heads of a row can be in its groups."""
        groups = row.get("groups", "one")
        if groups == "one" or "heads" not in row:
            return True
        return any(self.kv_heads(heads, groups) for heads in self.classes["heads"][row["heads"]])

    def kv_heads(self, heads: int, groups: str) -> int:
        """The heads of keys in such groups; 0 if there is no such number."""
        group = self.classes["groups"][groups][0]
        if not group:
            return 1 if heads > 1 and heads not in (2, 4, 8) else 0
        return heads // group if heads % group == 0 and (heads > group or group == 1) else 0
