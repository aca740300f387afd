"""Running a candidate: an exception of the candidate is a difference if the original runs."""

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from equivcheck.errors import DeviceLost, Mismatch, NotOpened, Raised, ReferenceRaises, ToolError, UnfitResult
from equivcheck.pairs.loading import line_of
from equivcheck.pairs.problem import Problem
from equivcheck.pairs.sides import CANDIDATE, REFERENCE, ensure_foreign, failure, raised_by, running
from equivcheck.pairs.write_guard import Overwritten
from equivcheck.runtime import global_state
from equivcheck.runtime.device import ensure_device_alive
from equivcheck.runtime.exits import exits_as_errors

__all__ = ["candidate_run", "first_line", "kind_of", "raised"]

T = TypeVar("T")


def candidate_run(
    problem: Problem, action: Callable[[nn.Module], T], *, reference: Callable[[], object] | None = None
) -> T:
    """Run `action` on the candidate; an exception of the candidate is a Mismatch if the original runs in the same way.

    Global settings that the candidate switches are put back.

    Args:
        problem: The case made real.
        action: Uses the candidate in some way.
        reference: Does the same with an original; by default `action` on an original that nothing has run.

    Returns:
        The result of `action`.

    Raises:
        Mismatch: `action` found a difference, or the candidate raised and the original ran.
        ReferenceRaises: The original raises, too. Then the candidate may raise.
        ToolError: Equivcheck's own code raised.
    """

    def run() -> T:
        with global_state.preserved(), exits_as_errors(), running(CANDIDATE):
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
        ensure_device_alive(problem.device, f"the candidate ran on {problem.case.id}", error, side=CANDIDATE)
        with running(CANDIDATE):
            ensure_foreign(error)
            side = raised_by(error)
        if side == REFERENCE:
            raise ReferenceRaises(first_line(error)) from error
        why = _raised(problem, original)
        if why is not None:
            raise ReferenceRaises(first_line(why)) from error
        raise raised(error) from error


def raised(error: Exception, original: str = "the original runs") -> Mismatch:
    """The difference that stands for an exception of the candidate, where the original raises none.

    Args:
        error: The exception.
        original: What the original was seen to do: by default the same as the candidate.
    """
    text = line_of(error)[:400]
    if isinstance(error, UnfitResult):
        return Mismatch(text, where="the result")
    return Raised(f"the candidate raises {type(error).__name__}: {text}; {original}", where=type(error).__name__)


def _raised(problem: Problem, original: Callable[[], object]) -> Exception | None:
    """The exception of the original when it is run as the candidate was; None if it runs."""
    with global_state.preserved(), exits_as_errors():
        try:
            why = failure(original)
        except Mismatch:
            return None  # it ran: a difference in its results does not matter here
    if why is not None:
        ensure_device_alive(problem.device, f"the original ran on {problem.case.id}", why, side=REFERENCE)
    return why


def kind_of(error: BaseException) -> str:
    """The name of an error's class; for a ReferenceRaises, the class of the error that the original raised."""
    return str(error).partition(":")[0] if isinstance(error, ReferenceRaises) else type(error).__name__


def first_line(error: BaseException) -> str:
    """The class of an error and the first line of its message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
