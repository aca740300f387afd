"""Compilation: what `torch.compile` makes of a candidate in one graph gives what the oracle gives."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import nn

from equivcheck.cases.case import Case
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.base.spaces import TRANSFORMED
from equivcheck.checks.base.under_transforms import attempted, not_compared, plain_pass
from equivcheck.checks.base.within import within
from equivcheck.checks.lengths import first_positions
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results

__all__ = ["compiled"]

_WHAT = "torch.compile(fullgraph=True)"
_BACKEND = "aot_eager"  # traces forward and backward pass as every other backend does, and needs no compiler of C++


def compiled(pair: Pair, case: Case) -> CaseResult:
    """Under `torch.compile(fullgraph=True)` outputs and gradients are the oracle's, or compiling is refused loudly.

    What was compiled for the whole sequence is called with a shorter one, too, under no_grad, and in the other mode.
    """
    problem = pair.problem(case)
    plain_pass(problem)
    candidate = candidate_run(problem, lambda _: problem.another_candidate(), reference=problem.make_reference)
    refused, got = attempted(problem, lambda: _run(problem, candidate), lambda: _run(problem, problem.make_reference()))
    if got is None:
        return not_compared(_WHAT, refused)
    helds = []
    for call, found in zip(_calls(problem), got, strict=True):
        truth = call.problem.truth(gradients=True)
        names = [
            name for name in dict.fromkeys((*truth.values, *found)) if call.gradients or not name.startswith("grad ")
        ]

        def own(call: _Call = call) -> Results:
            return call.of(problem.reference)

        with within(f"under {_WHAT}{call.how}"):
            helds.append(compare_all(call.problem, truth, found, own, names))
    return CaseResult.together(helds)


@dataclass(frozen=True)
class _Call:
    """One call of what was compiled: on which problem, in which mode, and how in words."""

    problem: Problem
    how: str = ""
    gradients: bool = True

    def of(self, module: nn.Module, called: nn.Module | None = None) -> Results:
        """What `called`, by default the module itself, gives of the module's weights in this call's mode."""
        was = module.training
        inside = replace(
            self.problem, outputs=lambda _, inputs: self.problem.outputs(module if called is None else called, inputs)
        )
        try:
            return inside.run(module.train(self.problem.case.training), self.problem.inputs, gradients=self.gradients)
        finally:
            module.train(was)


def _calls(problem: Problem) -> list[_Call]:
    """The whole, once more without gradients, its first half, which makes sizes symbols, and the whole in the other mode."""
    calls = [_Call(problem), _Call(problem, " and no_grad", gradients=False)]
    case = problem.case
    half = max(1, case.seq_len // 2)
    calls.append(_Call(first_positions(problem, half), f", called with {half} positions after {case.seq_len}"))
    if not case.attn_pdrop and not case.resid_pdrop:
        other = replace(problem, case=case.but(training=not case.training))
        calls.append(_Call(other, f", switched to {'eval' if case.training else 'train'}()"))
    return calls


def _run(problem: Problem, module: nn.Module) -> list[Results]:
    whole: nn.Module = torch.compile(module, fullgraph=True, backend=_BACKEND)  # type: ignore[assignment]  # is a module
    with _quiet():
        return [call.of(module, whole) for call in _calls(problem)]


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


_COMPILED = TRANSFORMED.but(  # each is called with its first half, too
    layouts=("contiguous",), min_seq_len=34, max_seq_len=128, min_heads=2, min_head_size=4
)

CHECKS = (Check.of("compile", compiled, _COMPILED, slow=True),)
