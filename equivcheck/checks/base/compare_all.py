"""All that a candidate gives, held against the oracle, and what the original gives in the same way."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from equivcheck.checks.base.check import CaseResult
from equivcheck.errors import Mismatch
from equivcheck.numerics.comparison import Comparison, compare
from equivcheck.numerics.mismatch_words import describe
from equivcheck.numerics.truth import Truth
from equivcheck.pairs.problem import Problem, Results

__all__ = ["compare_all"]

_TOLD = 3  # failing tensors that a message tells of
_APART = 2.0
"""Times the candidate's error, beyond which an original that leaves its budget is another one: a candidate may be twice as far off
as an original that does, so that the relation is the same both ways round."""


def compare_all(
    problem: Problem,
    truth: Truth,
    got: Results,
    own: Callable[[], Results],
    names: Iterable[str],
    *,
    select: Callable[[Tensor], Tensor] | None = None,
    reference: Results | None = None,
) -> CaseResult:
    """Hold the candidate's named tensors against the oracle, and the original's in the same way.

    Args:
        problem: The case made real.
        truth: The oracle's results.
        got: The candidate's results, by name.
        own: Gives the original's results, which are looked at where one of the candidate's fails.
        names: The tensors to compare.
        select: Picks the part that is compared, where it is not the whole.
        reference: The original's results, where they are known: an original that leaves its budget where the candidate does
            not is as far from the candidate as the candidate would be from it.

    Raises:
        Mismatch: One of the two is further from the oracle than rounding explains, and the other one is not.
    """
    worst = Comparison("", (), 0.0)
    failed: list[Comparison] = []
    ratios: dict[str, float] = {}
    notes: list[str] = []
    names = tuple(names)
    values = _brought({name: got.get(name) for name in names if name in truth.values}, problem)
    for name in names:
        if name not in truth.values:
            extra = got.get(name)
            if extra is not None and bool(extra.any()):
                raise Mismatch(f"{name}: the candidate has one, and the original has none", where=name)
            continue
        found = _compare(name, got.get(name), truth, problem, None, select, certain=False, values=values.get(name))
        if not found.passes:
            # a few runs are enough to pass on and never to accuse on: where scores are large an element may move by
            # nothing in most runs and by the whole of a probability in some
            its = own().get(name)
            found = _compare(name, got.get(name), truth, problem, its, select, certain=True)
            if not found.problem:
                found = _compare(name, got.get(name), truth, problem, its, select, certain=True, refined=True)
        if not found.passes and not found.finite and truth.overflows:
            found = _compare(
                name, got.get(name), truth, problem, its, select, certain=True, refined=True, overflows=True
            )
        if not found.passes:
            failed.append(found)
        if found.reference_ratio <= 1.0:  # else the two leave their budget together, and were compared with each other
            ratios[name] = found.ratio
        if found.unjudged:
            notes.append(
                "values that are not finite in the original, or beyond the dtype, were recorded and not judged"
            )
        if found.ratio >= worst.ratio:
            worst = found
    if failed:
        failed.sort(key=lambda c: -c.ratio)
        message = "\n".join(describe(c, dtype=problem.case.dtype) for c in failed[:_TOLD])
        if len(failed) > _TOLD:
            message += "\nand so are: " + ", ".join(c.name for c in failed[_TOLD:])
        raise Mismatch(message, ratio=failed[0].ratio, where=failed[0].name)
    if reference is not None and not truth.coarse:
        _compare_reference(problem, truth, reference, ratios)
    return CaseResult(worst.ratio, worst.name, tuple(dict.fromkeys(notes)))


def _compare_reference(problem: Problem, truth: Truth, reference: Results, ratios: Mapping[str, float]) -> None:
    """Hold the original's own results against the oracle, in the tensors in which the candidate is within its budget."""
    if truth.reference_ratios is None:
        truth.reference_ratios = {name: _reference_ratio(name, problem, truth, reference) for name in truth.values}
    for name, ratio in ratios.items():
        further = truth.reference_ratios.get(name, 0.0)
        if further > 1.0 and further > _APART * ratio:
            raise Mismatch(
                f"{name}: the original itself is {further:.3g} times further from what it gives in float64 than rounding in "
                f"{problem.case.dtype} explains, and the candidate is at {ratio:.2g} of the budget: they are not the same",
                ratio=further,
                where=name,
            )


def _reference_ratio(name: str, problem: Problem, truth: Truth, reference: Results) -> float:
    """The original's own error over its budget; 0 where it is not finite, and may overflow on the way."""
    value = reference.get(name)
    if value is None:
        return 0.0
    found = _compare(name, value, truth, problem, None, None, certain=False)
    if found.passes:
        return found.ratio
    overflows = not found.finite and truth.overflows
    # what is not finite is so with any number of perturbed runs
    found = (
        _compare(name, value, truth, problem, None, None, certain=False, overflows=overflows) if overflows else found
    )
    if found.passes or not found.finite:
        return found.ratio
    return _compare(name, value, truth, problem, None, None, certain=True, refined=True, overflows=overflows).ratio


def _brought(got: Results, problem: Problem) -> dict[str, Tensor]:
    """What the candidate gave, where the oracle is: all of one dtype at once, as each transfer waits for a GPU that others use."""
    found: dict[str, Tensor] = {}
    groups: dict[torch.dtype, dict[str, Tensor]] = {}
    for name, value in got.items():
        if value is not None and value.device == problem.device != problem.judged_on:
            groups.setdefault(value.dtype, {})[name] = value.detach()
    for group in groups.values():
        flat = torch.cat([value.reshape(-1) for value in group.values()]).to(problem.judged_on)
        parts = flat.split([value.numel() for value in group.values()])
        found |= {name: part.view(value.shape) for part, (name, value) in zip(parts, group.items(), strict=True)}
    return found


def _compare(
    name: str,
    got: Tensor | None,
    truth: Truth,
    problem: Problem,
    own: Tensor | None,
    select: Callable[[Tensor], Tensor] | None,
    *,
    certain: bool,
    refined: bool = False,
    values: Tensor | None = None,
    overflows: bool = False,
) -> Comparison:
    sample = truth.sample(refined=refined)
    moved = sample.deviations[name]
    options: dict[str, Any] = {"dtype": problem.case.torch_dtype, "certain": certain, "device": problem.device}
    options["overflows"] = overflows
    if got is not None and got.shape != truth.values[name].shape:
        return compare(name, got, truth.values[name], moved, reference=None, **options)
    if select is None:
        known = None if got is None or not truth.values[name].numel() else sample.spread(name)
        return compare(name, got, truth.values[name], moved, reference=own, spread=known, values=values, **options)
    chosen = torch.stack([select(d) for d in moved])
    got, own = (None if x is None else select(x) for x in (got, own))
    return compare(name, got, select(truth.values[name]), chosen, reference=own, **options)
