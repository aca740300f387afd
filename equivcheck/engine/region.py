"""The region of a difference: around a failing case one field at a time is varied, and what fails becomes a condition."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from equivcheck.cases.case import Case
from equivcheck.cases.domain import Domain
from equivcheck.cases.domain_fields import values_of
from equivcheck.checks import Check
from equivcheck.engine.case_cost import bounds_of
from equivcheck.engine.discovery.rules import condition
from equivcheck.engine.number_conditions import condition_on, next_value
from equivcheck.engine.region_axes import MOST_OF_ONE, MOST_WORK, Axis, affordable, axes_of, modes_of, put, work_of
from equivcheck.engine.region_words import tried_in_words
from equivcheck.engine.remembered_cases import standing
from equivcheck.engine.search import CLEAR
from equivcheck.engine.strata import space_of
from equivcheck.errors import Raised
from equivcheck.numerics.roundoff import unit_roundoff
from equivcheck.pairs.pair import Pair
from equivcheck.report.outcomes import CaseOutcome

__all__ = ["MOST_VARIANTS", "Around", "region_of"]

MOST_VARIANTS = 40
"""Cases that are run for the region of one difference."""
_OTHER_SEEDS = (1, 2)
_WORK_OF_READING = 8.0  # a check that reads masks runs a case so many times as often
_RELATED = (("kv_len", "seq_len"), ("kv_heads", "n_head"), ("value_size", "head_size"))
_RELATIONS = ("<", ">", "!=")


@dataclass(frozen=True, kw_only=True)
class Around:
    """What is known of a difference before anything is varied.

    Attributes:
        failed: The failing cases with their ratios, the smallest first.
        passed: The judged cases that pass.
        most: The most cases that are run; 0 for none.
    """

    failed: Mapping[Case, float]
    passed: Sequence[Case] = ()
    most: int = MOST_VARIANTS

    @property
    def smallest(self) -> Case:
        """The smallest failing case."""
        return next(iter(self.failed))


def region_of(
    around: Around, judge: Callable[[Case], CaseOutcome], check: Check, subject: Pair, dtypes: Sequence[str]
) -> dict[str, Any]:
    """The fields `region`, `tried`, `largest_case` and `largest_ratio` of a diagnosis.

    Args:
        around: What is known.
        judge: Runs the check on a case.
        check: The check.
        subject: The pair: no case is outside of its domain.
        dtypes: The dtypes of the run.
    """
    variants = _Variants(around, judge, check, subject, dtypes)
    region, tried = variants.vary() if around.most else ("", "")
    of_seed = {case: ratio for case, ratio in variants.ratios.items() if case.seed == around.smallest.seed}
    ratios = dict(around.failed) | of_seed
    largest = max(ratios, key=lambda case: ratios[case], default=around.smallest)
    if ratios.get(largest, 0.0) <= ratios.get(around.smallest, 0.0):
        return {"region": region, "tried": tried}
    return {"region": region, "tried": tried, "largest_case": largest.id, "largest_ratio": ratios[largest]}


@dataclass
class _Variants:
    """The variants of one case, and what each shows."""

    around: Around
    judge: Callable[[Case], CaseOutcome]
    check: Check
    subject: Pair
    dtypes: Sequence[str]
    ratios: dict[Case, float] = field(default_factory=dict)  # of the variants that fail
    _fails: dict[Case, bool | None] = field(default_factory=dict)  # None: it counts neither way
    _tried: dict[str, dict[Any, bool]] = field(default_factory=dict)
    _hiding: set[tuple[str, str | float]] = field(default_factory=set)  # what hides a failure in the smallest case
    _raised: bool = False

    def __post_init__(self) -> None:
        base = self.around.smallest
        self._space = space_of(self.check, self.subject, self.dtypes)
        self._modes = modes_of(self._space)
        self._has_weights = not self.subject.traits.function
        self._bounds = bounds_of("gate", self.subject.device.type)[1]
        needed = "causal lengths" if base.is_causal else "lengths"
        follow = {"kv_len": needed, "value_size": "value size"}
        self._alone = frozenset(name for name, feature in follow.items() if feature in self._space.features)
        self._calls, self._work = 0, 0.0

    def vary(self) -> tuple[str, str]:
        """The condition and what was tried, in words; both empty if other numbers of the same kind pass."""
        base = self.around.smallest
        self._fails |= dict.fromkeys(self.around.failed, True)
        self._fails |= dict.fromkeys(self.around.passed, False)
        first = self._judged(base)
        if first is None or first.failed is None:
            return "", ""
        if not first.spot.get("tensor") and not first.origin.startswith(Raised.__name__):
            return "", ""  # a statistic or an attribute: it depends on more than the fields of its case
        self._raised = first.origin.startswith(Raised.__name__)
        if any(self._outcome(base.but(seed=base.seed + more)) is False for more in _OTHER_SEEDS):
            return "", ""  # it depends on the values
        axes = list(self._axes())
        self._look(axes)
        conditions = {axis.name: self._condition(axis.name) for axis in axes}
        deciding = [name for name, text in conditions.items() if text != ""]
        return self._explaining(conditions) if deciding else "", tried_in_words(self._tried, deciding, self._hidden())

    def _hidden(self) -> list[str]:
        """The dtypes in which rounding hides the difference of the smallest case."""
        dtypes = sorted(str(value) for name, value in self._hiding if name == "dtype")
        return [dtype for dtype in dtypes if dtype not in self._tried["dtype"]]

    def _axes(self) -> Iterator[Axis]:
        """The fields, with the values that cost little enough, and what is known of these."""
        base, covering = self.around.smallest, self.subject.kind in self.check.covering
        real = values_of(base)
        for axis in axes_of(self._space, base, has_weights=self._has_weights, covering=covering):
            if axis.name not in real:
                continue
            self._tried[axis.name] = {real[axis.name]: True}
            if axis.table:
                table = [value for value in axis.table if self._put(base, axis.name, value) is not None]
                look = [*table[-1:], max(1, real[axis.name] - 1), *axis.look]
                axis = Axis(axis.name, [v for v in dict.fromkeys(look) if v in table], table)
            for value in axis.table or axis.look:
                case = self._put(base, axis.name, value)
                if case is not None and self._fails.get(case) is not None:
                    self._note(axis.name, value, self._fails[case])
            yield axis

    def _look(self, axes: Sequence[Axis]) -> None:
        """Run variants: one value of each field in turn, and after each turn the edges of what fails."""
        for turn in range(max((len(axis.look) for axis in axes), default=0)):
            for axis in axes:
                if turn < len(axis.look):
                    self._run(axis.name, axis.look[turn])
            for axis in axes:
                left = list(axis.table)
                while left and (value := next_value(self._tried[axis.name], left)) is not None:
                    self._run(axis.name, value)
                    left.remove(value)

    def _put(self, base: Case, name: str, value: Any) -> Case | None:
        """The case with this value; None if it cannot have it, or costs too much."""
        case = put(base, name, value, alone=self._alone)
        if case is None or not affordable(case, base, self._bounds, self._space, has_weights=self._has_weights):
            return None
        return case

    def _allowed(self, case: Case) -> bool:
        """Whether the check could have drawn the case: it is in the domain, and both sides take what it has."""
        checks = {self.check.name: self.check}
        where = standing(self.check.name, case.id, subject=self.subject, checks=checks, dtypes=self.dtypes)
        mode = (case.training, case.attn_pdrop, case.resid_pdrop)
        return where == "now" and (not self._modes or mode in self._modes)

    def _run(self, name: str, value: Any) -> None:
        """Run the variant with this value, and note whether it fails."""
        if value in self._tried[name]:
            return
        base = self.around.smallest
        case = self._put(base, name, value)
        if case is None or case == base:
            return
        self._note(name, value, self._outcome(case))

    def _note(self, name: str, value: Any, fails: bool | None) -> None:
        """Note whether a value fails; a word or rate that passes beside the smallest case has a second chance in a larger.

        In the smallest case a coarse dtype, values that repeat, or a dropped number may hide what fails elsewhere.
        """
        if fails is False and isinstance(value, str | float):
            elsewhere = self._fails_elsewhere(name, value)
            if elsewhere or (name == "dtype" and self._is_hidden_by(str(value))):
                self._hiding.add((name, value))
                fails = elsewhere or None
        if fails is not None:
            self._tried[name][value] = fails

    def _is_hidden_by(self, dtype: str) -> bool:
        """Whether rounding in a dtype would explain the difference of the smallest case."""
        base = self.around.smallest
        coarser = unit_roundoff(base.but(dtype=dtype).torch_dtype) / unit_roundoff(base.torch_dtype)
        return self.around.failed[base] < CLEAR * coarser

    def _fails_elsewhere(self, name: str, value: str | float) -> bool:
        if any(getattr(case, name) == value for case in self.around.failed):
            return True
        clear = [c for c, ratio in self.around.failed.items() if ratio >= CLEAR and work_of(c) <= MOST_OF_ONE]
        larger = max(clear, key=lambda c: c.batch_size * c.seq_len * c.n_embd, default=self.around.smallest)
        case = self._put(self.around.smallest, name, value)
        case = case and put(larger, name, value, alone=frozenset())
        return case is not None and self._outcome(case) is True

    def _outcome(self, case: Case) -> bool | None:
        """Whether a case fails; None if it counts neither way."""
        if case not in self._fails:
            outcome = self._judged(case) if self._allowed(case) else None
            self._fails[case] = None if outcome is None else self._meaning(case, outcome)
        return self._fails[case]

    def _meaning(self, case: Case, outcome: CaseOutcome) -> bool | None:
        if outcome.failed is None:
            return None if outcome.outside or not outcome.judged or outcome.unsupported else False
        if outcome.origin.startswith(Raised.__name__) is not self._raised:
            return None  # another difference
        self.ratios[case] = math.inf if outcome.ratio is None else outcome.ratio
        return True

    def _judged(self, case: Case) -> CaseOutcome | None:
        """The outcome of a case; None if enough cases were run."""
        work = work_of(case) * (_WORK_OF_READING if self._space.max_chunks is not None else 1.0)
        if self._calls >= self.around.most or self._work + work > max(MOST_WORK, 4 * work):
            return None
        self._calls, self._work = self._calls + 1, self._work + work
        return self.judge(case)

    def _condition(self, name: str) -> str | None:
        tried = self._tried[name]
        if all(isinstance(value, int | float) and not isinstance(value, bool) for value in tried):
            return condition_on(name, tried)
        return condition(name, tried)

    def _explaining(self, conditions: Mapping[str, str | None]) -> str:
        """The first condition that is true of all cases that fail, and of none that passes; empty if there is none."""
        for one, other in _RELATED:
            for relation in _RELATIONS:
                related = {n: t for n, t in conditions.items() if n not in (one, other)}
                related[one] = f"{one} {relation} {other}"
                if (conditions.get(one) or conditions.get(other)) and self._explains(related):
                    return _joined(related)
        return _joined(conditions) if self._explains(conditions) else ""

    def _explains(self, conditions: Mapping[str, str | None]) -> bool:
        if any(text is None for text in conditions.values()):
            return False
        domain = Domain.parse(_joined(conditions))
        telling = [
            (case, fails) for case, fails in self._fails.items() if fails or (fails is False and self._tells(case))
        ]
        return all(domain.allows(case) is fails for case, fails in telling)

    def _tells(self, case: Case) -> bool:
        """Whether a case that passes has no value that may hide what fails."""
        return not any(getattr(case, name) == value for name, value in self._hiding)


def _joined(conditions: Mapping[str, str | None]) -> str:
    return " and ".join(text for text in conditions.values() if text)
