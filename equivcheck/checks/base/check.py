"""A check as a record, and the result of a case that passed."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from equivcheck.cases.case import Case
from equivcheck.cases.strategies import CaseSpace
from equivcheck.report.catalogue import listed

__all__ = ["CaseResult", "Check"]


@dataclass(frozen=True)
class CaseResult:
    """A case that passed: its worst ratio of error to budget, the tensor it was seen in, and what is worth a note."""

    ratio: float | None = None
    where: str = ""
    notes: tuple[str, ...] = ()
    judged: bool = True  # False where the check has nothing to say on this pair: then no fault is planted for it
    unsupported: tuple[str, ...] = ()  # what the candidate refuses loudly and the original does: a transform
    data: Mapping[str, str] = field(default_factory=dict)  # of `backend` alone: dtype -> the kernels that ran

    @staticmethod
    def worst(helds: Iterable["CaseResult"]) -> "CaseResult":
        """Of several comparisons of one case the one that came nearest to its budget, the first of those; it stands for all."""
        return max(helds, key=lambda held: held.ratio or 0.0)

    @classmethod
    def together(cls, helds: Iterable["CaseResult"]) -> "CaseResult":
        """Several comparisons of one case as one: the worst ratio, all notes, and judged where any of them was."""
        each = list(helds)
        worst = cls.worst(each)
        return cls(
            worst.ratio,
            worst.where,
            tuple(dict.fromkeys(note for held in each for note in held.notes)),
            any(held.judged for held in each),
            tuple(dict.fromkeys(what for held in each for what in held.unsupported)),
        )


@dataclass(frozen=True, kw_only=True)
class Check:
    """A property that is held against cases.

    Attributes:
        name: As the command line and reports name it.
        kinds: The kinds of pairs that it applies to.
        cases: How many cases are run, by profile.
        judges: Whether it compares; one that does not only records.
        run: Returns the result of a case of a pair, or raises Mismatch.
        space: Within which its cases are drawn.
        options: Those of the command line that a replay needs.
        more_on_gpu: Whether more cases are run where more fit into a minute.
        slow: Whether it is begun before others.
        fine: Whether a single dtype must let it see a fault by itself.
        beyond: The kinds of pairs of which it has cases of many heads, many samples and wide heads.
        whole: Whether it runs a whole model in few cases.
        deep: Whether it has a case of three layers in each dtype.
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
    extra_case: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, name: str, run: Callable[[Any, Case], CaseResult], space: CaseSpace | None = None, **fields: Any
    ) -> "Check":
        """The check of this name in the catalogue, in the dtypes that stand there."""
        known = listed(name)
        space = (space or CaseSpace()).but(dtypes=known.dtypes)
        return cls(name=name, kinds=known.kinds, cases=known.cases, judges=known.judges, run=run, space=space, **fields)

    @property
    def promise(self) -> str:
        """The property in one sentence."""
        return self.run.__doc__ or ""
