"""Running a candidate, and holding what it gives against the oracle."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from equivcheck.checks.base.check import Held
from equivcheck.errors import DeviceLost, Mismatch, NotOpened, Raised, ReferenceRaises, ToolError, UnfitResult
from equivcheck.numerics.comparison import Comparison, compare, describe
from equivcheck.numerics.truth import Truth
from equivcheck.pairs.loading import line_of
from equivcheck.pairs.problem import Problem, Results
from equivcheck.pairs.sides import CANDIDATE, REFERENCE, ensure_foreign, failure, raised_by, running
from equivcheck.pairs.write_guard import Overwritten
from equivcheck.runtime import global_state
from equivcheck.runtime.device import hold_device
from equivcheck.runtime.exits import held_back

T = TypeVar("T")

__all__ = ["candidate_run", "first_line", "hold", "kind_of", "raised"]

_TOLD = 3  # failing tensors that a message tells of
_APART = 2.0
"""Times the candidate's error, beyond which an original that leaves its budget is another one: a candidate may be twice as far off
as an original that does, so that the relation is the same both ways round."""


def candidate_run(
    problem: Problem, action: Callable[[nn.Module], T], *, reference: Callable[[], object] | None = None
) -> T:
    """Run the candidate in some way; what it raises, where the original runs in the same way, is a Mismatch.

    Settings that it switches are put back.

    Args:
        problem: The case made real.
        action: What is done with the candidate.
        reference: The same, done with an original; by default `action` on one that nothing has run.

    Returns:
        What `action` returns.

    Raises:
        Mismatch: `action` found a difference, or the candidate raised and the original ran.
        ReferenceRaises: The original raises as well, so that nothing is asked of the candidate.
        ToolError: Equivcheck's own code raised.
    """

    def run() -> T:
        with global_state.kept(), held_back(), running(CANDIDATE):
            return action(problem.candidate)

    def original() -> object:
        return action(problem.make_reference()) if reference is None else reference()

    try:
        return run()
    except Overwritten as overwritten:
        if _raised(problem, original) is None and overwritten.where in problem.guard.reference_changes:
            return run()  # the original writes there as well
        raise
    except (Mismatch, NotOpened, DeviceLost, ToolError, ReferenceRaises):
        raise
    except Exception as error:
        hold_device(problem.device, f"the candidate ran on {problem.case.id}", error)
        with running(CANDIDATE):
            ensure_foreign(error)
            side = raised_by(error)
        if side == REFERENCE:
            raise ReferenceRaises(first_line(error)) from error
        why = _raised(problem, original)
        if why is not None:
            raise ReferenceRaises(first_line(why)) from error
        raise raised(error) from error


def raised(error: Exception) -> Mismatch:
    """What a candidate raised where the original ran, as a difference."""
    text = line_of(error)[:400]
    if isinstance(error, UnfitResult):
        return Mismatch(text, where="the result")
    return Raised(f"the candidate raises {type(error).__name__}: {text}; the original runs", where=type(error).__name__)


def _raised(problem: Problem, original: Callable[[], object]) -> Exception | None:
    """What the original raises where it is run as the candidate was; None where it runs."""
    with global_state.kept(), held_back():
        try:
            why = failure(original)
        except Mismatch:
            return None  # it ran, and what was seen of it is not asked here
    if why is not None:
        hold_device(problem.device, f"the original ran on {problem.case.id}", why)
    return why


def kind_of(error: BaseException) -> str:
    """The name of an error's class; of a ReferenceRaises that of what the original raised."""
    return str(error).partition(":")[0] if isinstance(error, ReferenceRaises) else type(error).__name__


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def hold(
    problem: Problem,
    truth: Truth,
    got: Results,
    own: Callable[[], Results],
    names: Iterable[str],
    *,
    select: Callable[[Tensor], Tensor] | None = None,
    reference: Results | None = None,
) -> Held:
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
        _hold_reference(problem, truth, reference, ratios)
    return Held(worst.ratio, worst.name, tuple(dict.fromkeys(notes)))


def _hold_reference(problem: Problem, truth: Truth, reference: Results, ratios: Mapping[str, float]) -> None:
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
