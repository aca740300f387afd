"""A check as a record, and the result of a case that passed."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from equivcheck.cases.case import Case
from equivcheck.cases.strategies import CaseSpace
from equivcheck.report.catalogue import listed

__all__ = ["CaseResult", "Check"]


@dataclass(frozen=True)
class CaseResult:
    """The result of a check on a case that passed.

    Attributes:
        ratio: The worst ratio of error to budget; None if no tensor was compared.
        where: The tensor with this ratio.
        notes: Remarks for the report.
        judged: Whether something was compared. If not in any case, no fault is planted for the check.
        applies: Whether the property has a meaning for the pair; if not, that was shown on the original.
        reason: Why nothing was compared although it has one, in one word.
        unsupported: The transforms that the original supports and the candidate refuses loudly.
        data: The kernels that ran, by dtype; from the check `backend` alone.
        outside: Whether the original refuses the case in a plain call, so that another one is drawn.
    """

    ratio: float | None = None
    where: str = ""
    notes: tuple[str, ...] = ()
    judged: bool = True
    applies: bool = True
    unsupported: tuple[str, ...] = ()
    data: Mapping[str, str] = field(default_factory=dict)
    reason: str = ""
    outside: bool = False

    @staticmethod
    def worst(results: Iterable["CaseResult"]) -> "CaseResult":
        """The comparison that came nearest to its budget, out of several of one case; the first one of equals."""
        return max(results, key=lambda result: result.ratio or 0.0)

    @classmethod
    def together(cls, results: Iterable["CaseResult"]) -> "CaseResult":
        """Several comparisons of one case as one: the worst ratio, all notes, and judged if any of them was."""
        all_results = list(results)
        worst = cls.worst(all_results)
        return cls(
            worst.ratio,
            worst.where,
            tuple(dict.fromkeys(note for result in all_results for note in result.notes)),
            any(result.judged for result in all_results),
            any(result.applies for result in all_results),
            tuple(dict.fromkeys(transform for result in all_results for transform in result.unsupported)),
        )


@dataclass(frozen=True, kw_only=True)
class Check:
    """A property that is held against cases.

    Attributes:
        name: As the command line and reports name it.
        kinds: The kinds of pairs that it applies to.
        cases: How many cases are run, by profile.
        judges: Whether it compares. A check that does not compare only records.
        run: Returns the result of a case of a pair, or raises Mismatch.
        space: The space from which its cases are drawn.
        options: The options of the command line that a replay needs.
        more_on_gpu: Whether more cases are run on a device on which more fit into a minute.
        slow: Whether it is started before others.
        fine: Whether it must detect a fault in each single dtype.
        beyond: The kinds of pairs for which it has cases with many heads, many samples and wide heads.
        whole: Whether it runs a whole model in few cases.
        deep: Whether it has a case with three layers in each dtype.
        covering: The kinds of pairs for which its cases meet every pair of classes of a case's factors, in a gate. In a
            thorough run they do so for all kinds, if there are any here.
        by_features: Whether its cases of functions have other lengths, heads and masks.
        extra_case: Limits of one more case in some dtypes.
    """

    name: str
    kinds: tuple[str, ...]
    cases: Mapping[str, int]
    judges: bool
    run: Callable[[Any, Case], CaseResult]
    space: CaseSpace
    options: tuple[str, ...] = ()
    more_on_gpu: bool = False
    slow: bool = False
    fine: bool = False
    beyond: tuple[str, ...] = ()
    whole: bool = False
    deep: bool = False
    by_features: bool = False
    covering: tuple[str, ...] = ()
    extra_case: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, name: str, run: Callable[[Any, Case], CaseResult], space: CaseSpace | None = None, **fields: Any
    ) -> "Check":
        """The check of this name in the catalogue, with the catalogue's kinds, counts of cases and dtypes.

        Args:
            name: The name in the catalogue.
            run: The property, as a function of a pair and a case.
            space: The space of its cases; by default the whole one.
            fields: The other fields of a Check.
        """
        known = listed(name)
        space = (space or CaseSpace()).but(dtypes=known.dtypes)
        return cls(name=name, kinds=known.kinds, cases=known.cases, judges=known.judges, run=run, space=space, **fields)

    def judging(self, run: Callable[[Any, Case], CaseResult], *options: str) -> "Check":
        """The check, with a property that judges what an option asks for.

        Args:
            run: The property.
            options: The words of the command line that ask for it.
        """
        return replace(self, run=run, options=options, judges=True)

    @property
    def promise(self) -> str:
        """The property in one sentence."""
        return self.run.__doc__ or ""
