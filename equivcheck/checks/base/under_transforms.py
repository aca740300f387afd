"""A candidate under a transform of torch, compared with the oracle; a transform that a side refuses is reported."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from equivcheck.checks.base.candidate_run import candidate_run, first_line, kind_of, raised
from equivcheck.checks.base.check import CaseResult
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.base.within import within
from equivcheck.errors import Mismatch, ReferenceRaises, ToolError, UnfitResult
from equivcheck.numerics.oracle import Widened, math_backend
from equivcheck.numerics.truth import Sample, Truth
from equivcheck.pairs.perturbed_runs import in_turn
from equivcheck.pairs.problem import Problem
from equivcheck.pairs.sides import CANDIDATE, ensure_foreign, failure, foreign, running
from equivcheck.pairs.write_guard import Overwritten
from equivcheck.runtime import clock, global_state
from equivcheck.runtime.device import ensure_device_alive
from equivcheck.runtime.exits import exits_as_errors
from equivcheck.runtime.rng import seeded

__all__ = ["Transform", "attempted", "compare_transformed", "not_compared", "plain_pass"]

T = TypeVar("T")

Transform = Callable[[Problem, nn.Module, Sequence[Tensor], Mapping[str, Tensor]], dict[str, Tensor]]
"""`transform(problem, module, inputs, upstream)` returns tensors by name."""

_FEW, _MANY = 3, 12  # perturbed runs of an original under a transform: to pass a tensor, and to fail it


def plain_pass(problem: Problem) -> None:
    """Run a plain forward and backward pass of the candidate.

    Raises:
        Mismatch: The candidate raises, and the original runs.
    """
    candidate_run(problem, lambda m: problem.run(m, problem.inputs, gradients=True))


def compare_transformed(problem: Problem, what: str, transform: Transform, plainly: Transform) -> CaseResult:
    """Compare the candidate under a transform with the oracle, for which plain autograd makes the same tensors.

    Each side runs on a new module, because a transform may leave tensors behind in one.

    Args:
        problem: The case made real.
        what: The name of the transform.
        transform: Makes tensors of the candidate.
        plainly: Makes the same tensors of the oracle by plain autograd.

    Returns:
        The comparison. If only the candidate raises, `what` is unsupported. If both raise, that is a note.

    Raises:
        Mismatch: The tensors differ, or the candidate's result cannot be compared.
    """

    def run(module: nn.Module) -> dict[str, Tensor]:
        with seeded(problem.case.seed, problem.device), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # from vmap, if it runs a kernel in a loop
            return transform(problem, module, problem.inputs, problem.upstream)

    def original() -> dict[str, Tensor]:
        return run(problem.make_reference())

    candidate = candidate_run(
        problem, lambda _: problem.another_candidate(), reference=lambda: problem.make_reference()
    )
    refused, candidate_results = attempted(problem, lambda: run(candidate), original)
    if candidate_results is None:
        return not_compared(what, refused)
    try:
        truth = problem.memory.recall((problem.memory_key, what), lambda: _truth(problem, plainly))
    except Exception as reference_error:
        ensure_foreign(reference_error)
        return not_compared(what, ReferenceRaises(first_line(reference_error)))
    with within(what):
        names = dict.fromkeys((*truth.values, *candidate_results))
        return compare_all(problem, truth, dict(candidate_results), lambda: dict(original()), names)


def attempted(
    problem: Problem, run: Callable[[], T], original: Callable[[], object]
) -> tuple[Exception | None, T | None]:
    """Run the candidate under a transform, and return its result or the reason why there is none.

    Args:
        problem: The case made real.
        run: The transform of the candidate.
        original: The same transform of an original.

    Returns:
        None and the result, or an exception and None. The exception is a ReferenceRaises if the original raises, too,
        and otherwise the candidate's.

    Raises:
        Mismatch: The candidate's result cannot be compared, and the original's can.
        ToolError: Equivcheck's own code raised.
    """
    try:
        with global_state.preserved(), exits_as_errors(), running(CANDIDATE), foreign():
            return None, run()
    except Overwritten as overwritten:
        if failure(lambda: _in_region(original)) is None and overwritten.where in problem.guard.reference_changes:
            return attempted(problem, run, original)  # the original writes there as well
        raise
    except (Mismatch, ToolError):
        raise
    except Exception as error:
        ensure_device_alive(problem.device, f"the candidate ran on {problem.case.id}", error, side=CANDIDATE)
        with running(CANDIDATE):
            ensure_foreign(error)
        with exits_as_errors(), global_state.preserved():
            why = failure(lambda: _in_region(original))
        if why is not None:
            return ReferenceRaises(first_line(why)), None
        if isinstance(error, UnfitResult):
            raise raised(error) from error
        return error, None


def _in_region(original: Callable[[], object]) -> None:
    with foreign():
        original()


def not_compared(what: str, why: Exception | None) -> CaseResult:
    """The result for a transform that a side refuses: a note if the original refuses it, otherwise unsupported."""
    assert why is not None, "there is a reason, or there is a result"
    if isinstance(why, ReferenceRaises):
        return CaseResult(
            notes=(f"{what}: the original itself raises {kind_of(why)}, there is nothing to compare",),
            judged=False,
            applies=False,
        )
    return CaseResult(unsupported=(f"{what}: {first_line(why)}",))


def _truth(problem: Problem, plainly: Transform) -> Truth:
    """The tensors that `plainly` makes of the oracle, and samples of them with every operation perturbed."""
    on = problem.judged_on
    upstream = {name: value.to(on, torch.float64) for name, value in problem.upstream.items()}

    def oracle(around: AbstractContextManager[object]) -> dict[str, Tensor]:
        module, inputs = problem.original_in_float64(on)  # not around: weights do not err
        with problem.within(module, on), seeded(problem.case.seed, problem.device), around:
            return {name: value.detach() for name, value in plainly(problem, module, inputs, upstream).items()}

    widened = Widened()
    with clock.in_part(clock.ORACLE), math_backend():
        values = oracle(widened)

    def perturbed(rounded: Problem, count: int) -> Sample:
        with math_backend():
            return in_turn(problem, values, count, lambda noise: oracle(rounded.rounding(noise, 1)))

    truth = Truth(values, partial(perturbed, problem), first=_FEW, many=_MANY)
    if (narrower := problem.narrower(widened)) is not None:
        of_narrower = partial(perturbed, narrower)
        truth.narrower = Truth(values, of_narrower, first=_FEW, many=_MANY, rounds_to=narrower.rounding_in)
    return truth
