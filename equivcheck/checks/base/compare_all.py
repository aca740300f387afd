"""The comparison of all named results of a candidate with the oracle, and of the original's with the same oracle."""

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from equivcheck.checks.base.check import CaseResult
from equivcheck.checks.base.in_full import is_wanted, keep
from equivcheck.errors import Mismatch
from equivcheck.numerics.comparison import Comparison, compare
from equivcheck.numerics.mismatch_words import describe
from equivcheck.numerics.neighbouring_rows import before_rows_not_finite, product_reaches_neighbours
from equivcheck.numerics.truth import Truth
from equivcheck.pairs.problem import Problem, Results
from equivcheck.runtime import clock

__all__ = ["compare_all"]

_SHOWN = 3  # failing tensors that a message describes
_APART = 2.0
"""An original beyond its budget differs from the candidate if its error is more than this many times the candidate's.

A candidate may be twice as far off as an original beyond its budget. So the relation is the same both ways round."""


def compare_all(
    problem: Problem,
    truth: Truth,
    candidate_results: Results,
    run_reference: Callable[[], Results],
    names: Iterable[str],
    *,
    select: Callable[[Tensor], Tensor] | None = None,
    reference: Results | None = None,
) -> CaseResult:
    """Compare the candidate's named tensors with the oracle, and the original's in the same way.

    Args:
        problem: The case made real.
        truth: The oracle's results.
        candidate_results: The candidate's results, by name.
        run_reference: Gives the original's results, by name. It is called if a tensor of the candidate fails.
        names: The tensors to compare.
        select: Picks the part of each tensor that is compared; by default the whole tensor.
        reference: The original's results, if they are known. Then an original beyond its budget is a difference, too,
            in each tensor in which the candidate is within its budget.

    Returns:
        The worst ratio of error to budget, the tensor that has it, and notes.

    Raises:
        Mismatch: One of the two is further from the oracle than rounding explains, and the other one is not.
    """
    worst = Comparison("", (), 0.0)
    failed: list[Comparison] = []
    ratios: dict[str, float] = {}
    notes: list[str] = []
    names = tuple(names)
    values = _transferred({name: candidate_results.get(name) for name in names if name in truth.values}, problem)
    for name in names:
        if name not in truth.values:
            extra = candidate_results.get(name)
            if extra is not None and bool(extra.any()):
                raise Mismatch(f"{name}: the candidate has one, and the original has none", where=name)
            continue
        value = candidate_results.get(name)
        comparison = _compare(name, value, truth, problem, None, select, certain=False, values=values.get(name))
        if not comparison.passes:
            # A few runs suffice to pass a tensor, and never to fail it. With large scores an element may move by
            # nothing in most runs, and by the whole of a probability in some.
            reference_value = run_reference().get(name)
            comparison = _compare(name, value, truth, problem, reference_value, select, certain=True)
            if not comparison.problem:
                comparison = _compare(name, value, truth, problem, reference_value, select, certain=True, refined=True)
        if not comparison.passes and not comparison.finite:
            undefined = _undefined(name, problem, truth) if select is None else None
            if undefined is not None or truth.overflows:
                comparison = _compare(
                    name,
                    value,
                    truth,
                    problem,
                    reference_value,
                    select,
                    certain=True,
                    refined=True,
                    overflows=truth.overflows,
                    undefined=undefined,
                )
        if not comparison.passes:
            failed.append(comparison)
        if comparison.reference_ratio <= 1.0:  # else both leave their budget, and were compared with each other
            ratios[name] = comparison.ratio
        if comparison.unjudged:
            notes.append(
                "values that are not finite in the original, or beyond the dtype, were recorded and not judged"
            )
        if comparison.ratio >= worst.ratio:
            worst = comparison
    if failed and truth.narrower is not None and _rounds_to_narrower(problem, truth, run_reference()):
        return compare_all(problem, truth.narrower, candidate_results, run_reference, names, select=select)
    if failed:
        failed.sort(key=lambda c: -c.ratio)
        message = "\n".join(describe(c, dtype=truth.rounds_to or problem.case.dtype) for c in failed[:_SHOWN])
        if len(failed) > _SHOWN:
            message += "\nand so are: " + ", ".join(c.name for c in failed[_SHOWN:])
        raise Mismatch(message, ratio=failed[0].ratio, where=failed[0].name, spot=_spot(failed[0]))
    if reference is not None and truth.narrower is None:
        _compare_reference(problem, truth, reference, ratios)
    if worst.name and is_wanted():
        keep(_in_full(worst.name, problem, truth, candidate_results, run_reference(), select))
    return CaseResult(worst.ratio, worst.name, tuple(dict.fromkeys(notes)))


def _in_full(
    name: str,
    problem: Problem,
    truth: Truth,
    candidate_results: Results,
    reference: Results,
    select: Callable[[Tensor], Tensor] | None,
) -> Comparison:
    """The comparison of a tensor that is within its budget, with all that is left out on a pass."""
    value, reference_value = candidate_results.get(name), reference.get(name)
    comparison = _compare(name, value, truth, problem, reference_value, select, certain=False)
    if comparison.passes:
        return comparison
    return _compare(name, value, truth, problem, reference_value, select, certain=True, refined=True)


def _spot(worst: Comparison) -> dict[str, Any]:
    """The worst element of a comparison; without numbers if shapes, dtypes or devices differ."""
    known = bool(worst.index) or not worst.problem
    candidate, oracle = (worst.candidate, worst.oracle) if known else (None, None)
    spot = {"tensor": worst.name, "index": list(worst.index), "candidate": candidate, "oracle": oracle}
    if worst.problem:
        return spot
    return {**spot, "norm": worst.level, "row": list(worst.row), "error": worst.error, "allowed": worst.allowed}


def _undefined(name: str, problem: Problem, truth: Truth) -> Tensor | None:
    """The elements of a tensor that may be not finite: they have no meaning, or the processor mixes them with others."""
    undefined = truth.undefined(name)
    value = truth.values[name]
    if undefined is not None or value.dim() < 2 or bool(value.isfinite().all()):
        return undefined
    reaches = product_reaches_neighbours(problem.case.torch_dtype, problem.device)
    return before_rows_not_finite(value) if reaches else None


def _compare_reference(problem: Problem, truth: Truth, reference: Results, ratios: Mapping[str, float]) -> None:
    """Compare the original's results with the oracle, in the tensors in which the candidate is within its budget."""
    if truth.reference_ratios is None:
        truth.reference_ratios = {name: _reference_ratio(name, problem, truth, reference) for name in truth.values}
    for name, candidate_ratio in ratios.items():
        reference_ratio = truth.reference_ratios.get(name, 0.0)
        if reference_ratio > 1.0 and reference_ratio > _APART * candidate_ratio:
            raise Mismatch(
                f"{name}: the original itself is {reference_ratio:.3g} times further from what it gives in float64 "
                f"than rounding in {problem.case.dtype} explains, and the candidate is at {candidate_ratio:.2g} of the "
                "budget: they are not the same",
                ratio=reference_ratio,
                where=name,
            )


def _rounds_to_narrower(problem: Problem, truth: Truth, reference: Results) -> bool:
    """Whether the original's error is nearer to a roundoff of the narrower dtype than to one of the case's dtype.

    An original that only names a narrower dtype, and errs by a little more than its budget, lends nothing.
    """
    assert truth.narrower is not None, "the original asks for a narrower dtype"
    narrower = torch.finfo(getattr(torch, truth.narrower.rounds_to)).eps
    halfway = math.sqrt(narrower / torch.finfo(problem.case.torch_dtype).eps)
    ratios = (_reference_ratio(name, problem, truth, reference) for name in truth.values)
    return any(halfway < ratio < math.inf for ratio in ratios)


def _reference_ratio(name: str, problem: Problem, truth: Truth, reference: Results) -> float:
    """The original's error over its budget; 0 if it is missing. It may overflow if the oracle says so.

    In a tensor that is not finite in the oracle, other elements of the original may be not finite either.
    """
    value = reference.get(name)
    if value is None:
        return 0.0
    comparison = _compare(name, value, truth, problem, None, None, certain=False)
    if comparison.passes:
        return comparison.ratio
    overflows = not comparison.finite and (truth.overflows or not bool(truth.values[name].isfinite().all()))
    # more perturbed runs do not make a value finite
    if overflows:
        comparison = _compare(name, value, truth, problem, None, None, certain=False, overflows=overflows)
    if comparison.passes or not comparison.finite:
        return comparison.ratio
    return _compare(name, value, truth, problem, None, None, certain=True, refined=True, overflows=overflows).ratio


def _transferred(candidate_results: Results, problem: Problem) -> dict[str, Tensor]:
    """The candidate's results on the device of the oracle; none if they are there already.

    All results of one dtype are moved at once, because each transfer waits for a GPU that others use.
    """
    transferred: dict[str, Tensor] = {}
    groups: dict[torch.dtype, dict[str, Tensor]] = {}
    for name, value in candidate_results.items():
        if value is not None and value.device == problem.device != problem.judged_on:
            groups.setdefault(value.dtype, {})[name] = value.detach()
    for group in groups.values():
        flat = torch.cat([value.reshape(-1) for value in group.values()]).to(problem.judged_on)
        parts = flat.split([value.numel() for value in group.values()])
        transferred |= {name: part.view(value.shape) for part, (name, value) in zip(parts, group.items(), strict=True)}
    return transferred


def _compare(
    name: str,
    candidate_value: Tensor | None,
    truth: Truth,
    problem: Problem,
    reference_value: Tensor | None,
    select: Callable[[Tensor], Tensor] | None,
    *,
    certain: bool,
    refined: bool = False,
    values: Tensor | None = None,
    overflows: bool = False,
    undefined: Tensor | None = None,
) -> Comparison:
    with clock.in_part(clock.COMPARING):
        sample = truth.sample(refined=refined)
        deviations = sample.deviations[name]
        options: dict[str, Any] = {"dtype": problem.case.torch_dtype, "certain": certain, "device": problem.device}
        options |= {"overflows": overflows, "undefined": undefined}
        if candidate_value is not None and candidate_value.shape != truth.values[name].shape:
            return compare(name, candidate_value, truth.values[name], deviations, reference=None, **options)
        if select is None:
            known = None if candidate_value is None or not truth.values[name].numel() else sample.spread(name)
            return compare(
                name,
                candidate_value,
                truth.values[name],
                deviations,
                reference=reference_value,
                spread=known,
                values=values,
                **options,
            )
        chosen = torch.stack([select(d) for d in deviations])
        candidate_value, reference_value = (
            None if x is None else select(x) for x in (candidate_value, reference_value)
        )
        return compare(name, candidate_value, select(truth.values[name]), chosen, reference=reference_value, **options)
