"""Compilation: what `torch.compile` makes of a candidate in one graph gives what the oracle gives."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn

from equivcheck.cases import Case
from equivcheck.checks.holding import Held, Pair, candidate_run, hold
from equivcheck.checks.transformed import first_line, plain_pass
from equivcheck.comparison import Mismatch
from equivcheck.problem import Problem, Results

__all__ = ["compiled"]

_WHAT = "torch.compile(fullgraph=True)"
_BACKEND = "aot_eager"  # traces forward and backward pass as every other backend does, and needs no compiler of C++


def compiled(pair: Pair, case: Case) -> Held:
    """Under `torch.compile(fullgraph=True)` outputs and gradients are the oracle's, or compiling is refused loudly."""
    problem = pair.problem(case)
    plain_pass(problem)
    candidate = candidate_run(problem, lambda _: problem.make_candidate(problem.make_reference()))
    try:
        got = _run(problem, candidate)
    except Exception as error:
        try:
            _run(problem, problem.make_reference())
        except Exception as its:
            return Held(
                notes=(f"{_WHAT}: the original itself raises {type(its).__name__}, there is nothing to compare",),
                judged=False,
            )
        return Held(unsupported=(f"{_WHAT}: {first_line(error)}",))
    truth = problem.truth(gradients=True)

    def own() -> Results:
        return problem.run(problem.reference, problem.inputs, gradients=True)

    try:
        return hold(problem, truth, got, own, dict.fromkeys((*truth.values, *got)))
    except Mismatch as error:
        raise Mismatch(f"under {_WHAT}: {error}", ratio=error.ratio, where=error.where) from None


def _run(problem: Problem, module: nn.Module) -> Results:
    whole = torch.compile(module, fullgraph=True, backend=_BACKEND)

    def outputs(_: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        return problem.outputs(whole, inputs)  # type: ignore[arg-type]  # a module compiled is a module

    with _quiet():
        return replace(problem, outputs=outputs).run(module, problem.inputs, gradients=True)


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, the compiler tells of refusals by its exceptions alone; afterwards it has forgotten what it compiled."""
    log = logging.getLogger("torch._dynamo")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
        torch.compiler.reset()
