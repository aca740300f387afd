"""Values: outputs, gradients and the logits of a whole model, held against the oracle within the budget."""

from equivcheck.cases import Case
from equivcheck.checks.holding import Held, Pair, candidate_run, hold
from equivcheck.problem import Problem, Results

__all__ = ["gradients", "logits", "output"]


def output(pair: Pair, case: Case) -> Held:
    """The outputs are the original's up to rounding: without and with autograd, and at the second call as at the first."""
    problem = pair.problem(case)
    problem.run(problem.reference, problem.inputs, gradients=False)
    truth = problem.truth(gradients=False)

    def own() -> Results:
        return problem.run(problem.reference, problem.inputs, gradients=False)

    names = tuple(truth.values)
    first = candidate_run(problem, lambda m: problem.run(m, problem.inputs, gradients=False))
    held = hold(problem, truth, first, own, names)
    second = candidate_run(problem, lambda m: problem.run(m, problem.inputs, gradients=True))
    again = hold(problem, truth, second, own, names)
    return max(held, again, key=lambda h: h.ratio or 0.0)


def _with_gradients(problem: Problem, *, outputs: bool) -> Held:
    problem.run(problem.reference, problem.inputs, gradients=True)
    truth = problem.truth(gradients=True)
    got = candidate_run(problem, lambda m: problem.run(m, problem.inputs, gradients=True))
    names = dict.fromkeys((*truth.values, *got))
    return hold(
        problem,
        truth,
        got,
        lambda: problem.run(problem.reference, problem.inputs, gradients=True),
        [name for name in names if outputs or name.startswith("grad ")],
    )


def gradients(pair: Pair, case: Case) -> Held:
    """The gradients of the inputs and of every parameter are the original's up to rounding, for a random upstream gradient."""
    return _with_gradients(pair.problem(case), outputs=False)


def logits(pair: Pair, case: Case) -> Held:
    """Inside a whole GPT the logits, the loss and every parameter's gradient are the original's up to rounding."""
    inside = pair.within_gpt() if pair.kind == "module" else pair
    return _with_gradients(inside.problem(case), outputs=True)
