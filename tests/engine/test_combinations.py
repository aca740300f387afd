"""Pairs and triples of classes: those that count, and those that cases meet, counted one by one and at once."""

import random
from collections.abc import Iterable
from itertools import combinations, product
from typing import Any

import pytest
import torch.nn.functional as F
from searches import BY_NAME

from equivcheck.cases.case import Case
from equivcheck.cases.factors import labels_of
from equivcheck.engine.case_cost import bounds_of
from equivcheck.engine.class_rules import COSTING, RULED
from equivcheck.engine.combinations import ClassCombinations, by_class
from equivcheck.engine.covering import rows_of
from equivcheck.engine.covering_array import CoveringArray
from equivcheck.engine.strata import space_of
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve

OUTPUT = BY_NAME["output"]
MODULE = "equivcheck.attention:CausalSelfAttention"


@pytest.fixture(scope="module", params=["module", "function"])
def subject(request: pytest.FixtureRequest) -> Pair:
    side = MODULE if request.param == "module" else F.scaled_dot_product_attention
    return resolve(side, side, kind=request.param, device="cpu")


@pytest.fixture(scope="module")
def array(subject: Pair) -> CoveringArray:
    bounds = bounds_of("gate", "cpu")
    return CoveringArray(space_of(OUTPUT, subject, DTYPES), bounds, has_weights=not subject.traits.function, seed=0)


def one_by_one(array: CoveringArray, size: int, outside: Iterable[Any]) -> tuple[set[Any], set[Any]]:
    """The combinations that cases can meet, and those that cost too much."""
    wanted: set[Any] = set()
    costly: set[Any] = set()
    for factors in combinations(array.factors, size):
        for labels in product(*(factor.classes for factor in factors)):
            classes = tuple((factor.name, label) for factor, label in zip(factors, labels, strict=True))
            if array.rules.possible(dict(classes)) and not set(combinations(classes, 2)) & set(outside):
                (wanted if array.rules.affordable(dict(classes)) else costly).add(classes)
    return wanted, costly


@pytest.mark.parametrize("size", [2, 3])
def test_the_counts_are_those_of_every_combination_by_itself(array: CoveringArray, subject: Pair, size: int) -> None:
    cases = rows_of([OUTPUT], subject, DTYPES, "gate", 0)["output"]["cases"][::3]
    pairs, _ = one_by_one(array, 2, ())
    outside = set(sorted(pairs)[::97])
    wanted, costly = one_by_one(array, size, outside)
    met = {
        combination
        for labels in (labels_of(Case.parse(case), array.factors) for case in cases)
        for combination in combinations([(f.name, labels[f.name]) for f in array.factors if f.name in labels], size)
    }
    counted = ClassCombinations(array, size, outside)
    not_met = counted.not_met(by_class(array, cases))
    assert counted.of == len(wanted)
    assert not_met["not judged"].bit_count() == len(wanted - met)
    assert not_met["cost"].bit_count() == len(costly - met)
    assert ClassCombinations(array, size, set()).of > counted.of


def test_no_case_meets_nothing(array: CoveringArray) -> None:
    counted = ClassCombinations(array, 3, set())
    assert counted.not_met(by_class(array, []))["not judged"].bit_count() == counted.of


def test_other_factors_decide_nothing(array: CoveringArray) -> None:
    chosen = random.Random(0)
    for _ in range(2000):
        factors = chosen.sample(array.factors, chosen.randint(1, 5))
        row = {factor.name: chosen.choice(list(factor.classes)) for factor in factors}
        assert array.rules.possible(row) == array.rules.possible({name: row[name] for name in row if name in RULED})
        assert array.rules.affordable(row) == array.rules.affordable(
            {name: row[name] for name in row if name in COSTING}
        )
