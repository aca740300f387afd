"""Compilation: a candidate that `torch.compile` compiles into one graph gives the oracle's results."""

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
_BACKEND = "aot_eager"  # traces forward and backward pass as other backends do, and needs no C++ compiler


def compiled(pair: Pair, case: Case) -> CaseResult:
    """Under `torch.compile(fullgraph=True)` outputs and gradients are the oracle's, or compiling is refused loudly.

    The same compiled module is also called under no_grad, with a shorter sequence, and in the other mode.
    """
    problem = pair.problem(case)
    plain_pass(problem)
    candidate = candidate_run(problem, lambda _: problem.another_candidate(), reference=problem.make_reference)
    refused, candidate_results = attempted(
        problem, lambda: _run(problem, candidate), lambda: _run(problem, problem.make_reference())
    )
    if candidate_results is None:
        return not_compared(_WHAT, refused)
    results = []
    for call, call_results in zip(_calls(problem), candidate_results, strict=True):
        truth = call.problem.truth(gradients=True)
        names = [
            name
            for name in dict.fromkeys((*truth.values, *call_results))
            if call.gradients or not name.startswith("grad ")
        ]

        def run_reference(call: _Call = call) -> Results:
            return call.of(problem.reference)

        with within(f"under {_WHAT}{call.how}"):
            results.append(compare_all(call.problem, truth, call_results, run_reference, names))
    return CaseResult.together(results)


@dataclass(frozen=True)
class _Call:
    """One call of a compiled module: its problem, a description, and whether gradients are taken."""

    problem: Problem
    how: str = ""
    gradients: bool = True

    def of(self, module: nn.Module, called: nn.Module | None = None) -> Results:
        """The results of `called`, by default the module itself, with the module's weights in this call's mode."""
        was_training = module.training
        inside = replace(
            self.problem, outputs=lambda _, inputs: self.problem.outputs(module if called is None else called, inputs)
        )
        try:
            return inside.run(module.train(self.problem.case.training), self.problem.inputs, gradients=self.gradients)
        finally:
            module.train(was_training)


def _calls(problem: Problem) -> list[_Call]:
    """The whole; the whole under no_grad; the first half, which makes sizes symbolic; the whole in the other mode."""
    calls = [_Call(problem), _Call(problem, " and no_grad", gradients=False)]
    case = problem.case
    half = problem.part_of_length(max(1, case.seq_len // 2))
    if half < case.seq_len:
        calls.append(_Call(first_positions(problem, half), f", called with {half} positions after {case.seq_len}"))
    if not case.attn_pdrop and not case.resid_pdrop:
        other = replace(problem, case=case.but(training=not case.training))
        calls.append(_Call(other, f", switched to {'eval' if case.training else 'train'}()"))
    return calls


def _run(problem: Problem, module: nn.Module) -> list[Results]:
    whole: nn.Module = torch.compile(module, fullgraph=True, backend=_BACKEND)  # type: ignore[assignment]  # a module
    with _quiet():
        return [call.of(module, whole) for call in _calls(problem)]


@contextmanager
def _quiet() -> Iterator[None]:
    """Inside, the compiler logs nothing and warns of nothing; afterwards its cache is empty."""
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


_COMPILED = TRANSFORMED.but(  # each case is also called with its first half
    layouts=("contiguous",), min_seq_len=34, max_seq_len=128, min_heads=2, min_head_size=4
)

CHECKS = (Check.of("compile", compiled, _COMPILED, slow=True),)
