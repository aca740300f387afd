"""Whether a planted fault changes anything around this original: probe cases, drawn from another seed, decide it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from equivcheck.cases.case import Case
from equivcheck.checks import CaseResult, Check
from equivcheck.engine.search import Search, seed_for
from equivcheck.engine.strata import classes
from equivcheck.numerics.roundoff import unit_roundoff
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results
from equivcheck.pairs.sides import CANDIDATE, ensure_foreign, running
from equivcheck.runtime.global_state import preserved

__all__ = ["PROBES", "Probes"]

PROBES = 64
_BEYOND = 16.0
"""Times the original's error. A budget that the original exceeds is twice that error; a run sees faults well beyond."""
_NOISE = 2.0**-40
"""Of the largest value of all: above the difference of two float64 computations, and far below every fault."""
_IN_A_GPT = ("logits", "training", "generation")
_NO_CASE = 2**40  # added to the run's seed, so that `seed_for` gives seeds that no run uses


@dataclass
class Probes:
    """Probe cases for the faults of one run, per check that should see a fault.

    Attributes:
        subject: The pair.
        dtypes: The dtypes in which the pair is judged.
        planned: Name of a check -> its number of cases in this run.
        seed: The run's seed.
    """

    subject: Pair
    dtypes: Sequence[str]
    planned: dict[str, int]
    seed: int
    _drawn: dict[str, list[Case]] = field(default_factory=dict)
    _reference: dict[tuple[bool, Case], list[Results]] = field(default_factory=dict)

    def changed_by(self, fault: Pair, checks: Sequence[Check]) -> Iterator[tuple[Check, Case]]:
        """The probe cases of these checks that a fault changes by more than the original's error there."""
        each = max(1, PROBES // max(1, len(checks)))
        for check in checks:
            for case in self._cases(check)[:each]:
                if self._changes(fault, check, case):
                    yield check, case

    def _cases(self, check: Check) -> list[Case]:
        """Cases from all classes of the check, evenly spread."""
        if check.name not in self._drawn:
            seen: list[Case] = []

            def collect(_: object, case: Case) -> CaseResult:
                seen.append(case)
                return CaseResult(judged=False)

            planned = max(self.planned.get(check.name, 0), PROBES)
            drawn_from = classes(check, self.subject, self.dtypes, planned)
            search = Search(replace(check, run=collect), self.subject, planned, 0.0, math.inf, lambda _: None)
            search.run(drawn_from, seed_for(self.seed + _NO_CASE, check.name))
            step = max(1.0, len(seen) / PROBES)
            self._drawn[check.name] = [seen[int(at * step)] for at in range(min(PROBES, len(seen)))]
        return self._drawn[check.name]

    def _changes(self, fault: Pair, check: Check, case: Case) -> bool:
        inside = check.name in _IN_A_GPT and self.subject.traits.within_gpt
        if check.name == "dropout" and self.subject.domain.allows(case.but(training=True)):
            case = case.but(training=True)
        key = (inside, case)
        if key not in self._reference:
            problem = (self.subject.within_gpt() if inside else self.subject).problem(case)
            try:
                self._reference[key] = list(_ways(problem, problem.reference))
            except Exception as error:
                ensure_foreign(error)
                self._reference[key] = []  # a case that the original refuses shows nothing
        reference = self._reference[key]
        if not reference:
            return False
        problem = (fault.within_gpt() if inside else fault).problem(case)
        try:
            with preserved(), running(CANDIDATE):  # some faults are settings that they switch
                faulty = list(_ways(problem, problem.candidate))
        except Exception as error:
            ensure_foreign(error)
            return True
        return any(_differ(problem, *pair) for pair in zip(reference, faulty, strict=True))


def _ways(problem: Problem, module: torch.nn.Module) -> Iterator[Results]:
    for gradients in (False, True):
        yield problem.run(module, problem.inputs, gradients=gradients)


def _differ(problem: Problem, reference: Results, faulty: Results) -> bool:
    """Whether two results of a case differ by many times the original's error in it."""
    apart: dict[str, float] = {}
    noise = _NOISE * max((_greatest(value.double()) for value in reference.values() if value is not None), default=0.0)
    for name in dict.fromkeys((*reference, *faulty)):
        one, other = reference.get(name), faulty.get(name)
        if one is None or other is None or one.shape != other.shape or one.dtype != other.dtype:
            if one is not None or (other is not None and bool(other.double().any())):
                return True
            continue
        one, other = one.double(), other.double()  # some dtypes have no arithmetic
        if not torch.equal(one.isfinite(), other.isfinite()):
            return True
        distance = _greatest(other - one)
        if distance > max(noise, _BEYOND * unit_roundoff(problem.case.torch_dtype) * _greatest(one)):
            apart[name] = distance
    if not apart:
        return False
    if problem.case.training and problem.case.attn_pdrop + problem.case.resid_pdrop > 0:
        return True  # the oracle has another mask; here both sides had the same generator state
    truth = problem.oracle_values(gradients=True)
    return any(
        distance > _BEYOND * _greatest(_of(reference, name).to(truth[name]) - truth[name])
        for name, distance in apart.items()
        if name in truth
    )


def _of(results: Results, name: str) -> Tensor:
    value = results[name]
    assert value is not None, "a tensor that differs is in the results"
    return value


def _greatest(x: Tensor) -> float:
    return float(torch.nan_to_num(x, posinf=0.0, neginf=0.0).abs().max()) if x.numel() else 0.0
