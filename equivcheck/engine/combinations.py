"""Pairs and triples of classes of a case's factors: which of them cases can meet, and which of these some cases meet."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from itertools import combinations

from equivcheck.cases.case import Case
from equivcheck.cases.factors import labels_of
from equivcheck.engine.class_rules import COSTING, RULED
from equivcheck.engine.covering_array import Classes, CoveringArray

__all__ = ["CasesByClass", "ClassCombinations", "by_class"]

Class = tuple[str, str]
CasesByClass = Mapping[Class, int]
Group = tuple[tuple[Class, ...], list[Class]]


class ClassCombinations:
    """The combinations of so many classes, each of another factor, that are possible and not outside of the domain.

    Attributes:
        wanted: Those that cases can meet, as groups: the first classes of several combinations, and the last of each.
        costly: Those that cost too much, in the same form.
    """

    def __init__(self, array: CoveringArray, size: int, outside: Set[Classes]) -> None:
        """The combinations of classes of an array.

        Args:
            array: The array.
            size: The number of classes in each: 2 or 3.
            outside: The pairs, and triples, that no case of the domain meets: a combination with one does not count.
        """
        self._outside = outside
        self._possible = _remembered(array.rules.possible, RULED)
        self._affordable = _remembered(array.rules.affordable, COSTING)
        self.wanted: list[Group] = []
        self.costly: list[Group] = []
        for *factors, last in combinations(array.factors, size):
            for first in self._firsts([[(f.name, label) for label in f.classes] for f in factors]):
                self._add(first, [(last.name, label) for label in last.classes])

    @property
    def of(self) -> int:
        """The number of those that cases can meet."""
        return sum(len(lasts) for _, lasts in self.wanted)

    def not_met(self, cases: CasesByClass) -> dict[str, int]:
        """For each reason the combinations that no case meets, as a number with a bit for each."""
        return {"cost": _not_met(self.costly, cases), "not judged": _not_met(self.wanted, cases)}

    def _firsts(self, classes: Sequence[Sequence[Class]]) -> Iterator[tuple[Class, ...]]:
        """All but the last class of each combination."""
        if len(classes) == 1:
            yield from ((one,) for one in classes[0])
            return
        for first in self._firsts(classes[:-1]):
            yield from ((*first, one) for one in classes[-1] if self._counts((*first, one)))

    def _add(self, first: tuple[Class, ...], lasts: Sequence[Class]) -> None:
        wanted: list[Class] = []
        costly: list[Class] = []
        for last in lasts:
            if self._counts((*first, last)):
                (wanted if self._affordable((*first, last)) else costly).append(last)
        self.wanted += [(first, wanted)] if wanted else []
        self.costly += [(first, costly)] if costly else []

    def _counts(self, classes: Sequence[Class]) -> bool:
        if self._outside and (
            any((one, classes[-1]) in self._outside for one in classes[:-1]) or tuple(classes) in self._outside
        ):
            return False
        return self._possible(classes)


def _remembered(asked: Callable[[Mapping[str, str]], bool], factors: Set[str]) -> Callable[[Sequence[Class]], bool]:
    """What is asked of a row, asked once for the same classes of these factors."""
    answers: dict[tuple[Class, ...], bool] = {}

    def answer(classes: Sequence[Class]) -> bool:
        deciding = tuple([one for one in classes if one[0] in factors])
        known = answers.get(deciding)
        if known is None:
            known = answers[deciding] = asked(dict(deciding))
        return known

    return answer


def by_class(array: CoveringArray, cases: Iterable[str]) -> CasesByClass:
    """The cases that are in each class, as a number with a bit for each."""
    bits = {(factor.name, label): 0 for factor in array.factors for label in factor.classes}
    for at, case in enumerate(map(Case.parse, cases)):
        for one in labels_of(case, array.factors).items():
            bits[one] |= 1 << at
    return bits


def _not_met(groups: Iterable[Group], cases: CasesByClass) -> int:
    digits: list[str] = []
    for first, lasts in groups:
        both = cases[first[0]]
        for one in first[1:]:
            both &= cases[one]
        digits += ["0" if both & cases[last] else "1" for last in lasts] if both else "1" * len(lasts)
    return int("".join(digits) or "0", 2)
