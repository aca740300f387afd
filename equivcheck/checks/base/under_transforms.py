"""A candidate under a transform of torch, held against the oracle under the same; and what is said where one of them refuses it."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
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
from equivcheck.runtime import global_state
from equivcheck.runtime.device import ensure_device_alive
from equivcheck.runtime.exits import exits_as_errors
from equivcheck.runtime.rng import seeded

__all__ = ["Transform", "attempted", "compare_transformed", "not_compared", "plain_pass"]

T = TypeVar("T")

Transform = Callable[[Problem, nn.Module, Sequence[Tensor], Mapping[str, Tensor]], dict[str, Tensor]]
"""`transform(problem, module, inputs, upstream)` gives named tensors."""

_FEW, _MANY = 3, 12  # perturbed runs of an original under a transform: to pass on, and to accuse on


def plain_pass(problem: Problem) -> None:
    """A plain forward and backward pass: what the candidate raises there, where the original runs, is a Mismatch."""
    candidate_run(problem, lambda m: problem.run(m, problem.inputs, gradients=True))


def compare_transformed(problem: Problem, what: str, transform: Transform, plainly: Transform) -> CaseResult:
    """Hold what `transform` gives of the candidate against the oracle's, of which `plainly` makes the same by plain autograd.

    Where the candidate raises and the original does not, `what` is unsupported; where the original raises, too, that is a
    note: there is nothing to compare. Each runs on a module of its own, for a transform may leave its tensors behind in one.
    """

    def run(module: nn.Module) -> dict[str, Tensor]:
        with seeded(problem.case.seed, problem.device), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # vmap's, where it runs a kernel in a loop
            return transform(problem, module, problem.inputs, problem.upstream)

    def original() -> dict[str, Tensor]:
        return run(problem.make_reference())

    candidate = candidate_run(
        problem, lambda _: problem.another_candidate(), reference=lambda: problem.make_reference()
    )
    refused, got = attempted(problem, lambda: run(candidate), original)
    if got is None:
        return not_compared(what, refused)
    try:
        truth = problem.memory.recall((problem.memory_key, what), lambda: _truth(problem, plainly))
    except Exception as its:
        ensure_foreign(its)
        return not_compared(what, ReferenceRaises(first_line(its)))
    with within(what):
        return compare_all(problem, truth, dict(got), lambda: dict(original()), dict.fromkeys((*truth.values, *got)))


def attempted(
    problem: Problem, run: Callable[[], T], original: Callable[[], object]
) -> tuple[Exception | None, T | None]:
    """What the candidate gives under a transform, or why there is nothing: what it refuses there, or what the original does.

    Args:
        problem: The case made real.
        run: The transform of the candidate.
        original: The same of an original.

    Returns:
        None and the result; or a ReferenceRaises where the original raises too, else what the candidate raised, and None.

    Raises:
        Mismatch: The candidate's result is none that can be compared, and the original's is.
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
        ensure_device_alive(problem.device, f"the candidate ran on {problem.case.id}", error)
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
    """A transform under which nothing was compared: a note where the original refuses it too, else it is unsupported."""
    assert why is not None, "there is a reason, or there is a result"
    if isinstance(why, ReferenceRaises):
        return CaseResult(
            notes=(f"{what}: the original itself raises {kind_of(why)}, there is nothing to compare",), judged=False
        )
    return CaseResult(unsupported=(f"{what}: {first_line(why)}",))


def _truth(problem: Problem, plainly: Transform) -> Truth:
    """What `plainly` makes of the oracle, and samples of it with every operation perturbed."""
    on = problem.judged_on
    upstream = {name: value.to(on, torch.float64) for name, value in problem.upstream.items()}

    def oracle(around: AbstractContextManager[object]) -> dict[str, Tensor]:
        module, inputs = problem.original_in_float64(on)  # not around: weights do not err
        with problem.within(module, on), seeded(problem.case.seed, problem.device), around:
            return {name: value.detach() for name, value in plainly(problem, module, inputs, upstream).items()}

    with math_backend():
        values = oracle(Widened())

    def perturbed(count: int) -> Sample:
        with math_backend():
            return in_turn(problem, values, count, lambda noise: oracle(problem.rounding(noise, 1)))

    return Truth(values, perturbed, first=_FEW, many=_MANY)
