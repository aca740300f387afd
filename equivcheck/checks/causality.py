"""Causality: what comes later never moves what came earlier, forward or backward."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from equivcheck.cases.case import Case, arrange, generator
from equivcheck.cases.strategies import CaseSpace
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.base.within import within
from equivcheck.errors import Mismatch
from equivcheck.numerics.dtypes import dtype_row
from equivcheck.numerics.truth import Truth
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results

__all__ = ["causality"]


_MOVED = 2.0**-20  # of the largest value, in float64: what rounding at the size of the loud inputs stays below


def causality(pair: Pair, case: Case) -> CaseResult:
    """Outputs up to a position stay within budget when everything after it is replaced, and have no gradient there.

    Where the original itself is not causal, or leaks, both are held against the oracle of the replaced input.
    """
    problem = pair.problem(case)
    problem.run(problem.reference, problem.inputs, gradients=False)
    kept = 1 + int(torch.randint(max(case.seq_len - 1, 1), (), generator=generator(case, "split")))
    if kept >= case.seq_len:
        return CaseResult(0.0, judged=False)  # a single position has nothing after it
    later = [_replaced(problem, x, kept) for x in problem.inputs]
    truth = problem.truth(gradients=False)
    names = [name for name in truth.values if name != "loss"]
    changed = replace(problem, inputs=tuple(later), memory_key=(problem.memory_key, "later"))
    if not _causal(changed, truth, names, kept):
        held = _on_that_input(changed)
        return replace(held, notes=("the original is not causal", *held.notes), judged=False)
    reference_later = problem.run(problem.reference, later, gradients=False)
    before = [value[..., :kept, :] for name in names if (value := reference_later[name]) is not None]
    if any(bool(value.isnan().any()) for value in before):
        return CaseResult(None, notes=("later values that the original itself lets through as NaN were not judged",))
    candidate_later = candidate_run(problem, lambda m: problem.run(m, later, gradients=False))
    held = compare_all(
        problem, truth, candidate_later, lambda: reference_later, names, select=lambda y: y[..., :kept, :]
    )
    if problem.names:
        _no_gradient_after(problem, kept)
    return held


def _on_that_input(problem: Problem) -> CaseResult:
    """Outputs and gradients of an original that is not causal, on an input whose later positions are loud."""

    def run(module: nn.Module) -> Results:
        return problem.run(module, problem.inputs, gradients=bool(problem.names))

    reference = run(problem.reference)
    if any(value is not None and bool(value.isnan().any()) for value in reference.values()):
        return CaseResult(None, notes=("later values that the original itself lets through as NaN were not judged",))
    truth = problem.truth(gradients=bool(problem.names))
    candidate = candidate_run(problem, run)
    names = [name for name in dict.fromkeys((*truth.values, *candidate)) if name != "loss"]
    with within("with later positions replaced, where the original is not causal"):
        return compare_all(problem, truth, candidate, lambda: reference, names)


def _causal(changed: Problem, truth: Truth, names: Sequence[str], kept: int) -> bool:
    """Whether the original itself, in float64, is not moved by what comes later: by what `changed` has there."""
    replaced = changed.oracle_values(gradients=False)
    for name in names:
        before, after = truth.values[name][..., :kept, :], replaced[name][..., :kept, :]
        moved = (before - after).abs().nan_to_num()  # where the original is not finite nothing can be told
        if float(moved.max()) > _MOVED * float(before.abs().nan_to_num().max()):
            return False
    return True


def _replaced(problem: Problem, x: torch.Tensor, kept: int) -> torch.Tensor:
    """The input with everything from position `kept` on replaced, in the case's layout."""
    case = problem.case
    source = generator(case, "later")
    if not x.is_floating_point():
        other = torch.randint(case.vocab_size, x.shape, generator=source).to(x.device)
        return torch.cat((x[:, :kept], other[:, kept:]), dim=1)
    size = dtype_row(case.dtype).loud_value if case.seed % 2 and case.regime not in ("tiny", "near_limit") else 1.0
    other = torch.randn(x.shape, generator=source, dtype=torch.float64).mul_(size).to(x.device, x.dtype)
    return arrange(torch.cat((x[..., :kept, :], other[..., kept:, :]), dim=-2), case.layout)


def _no_gradient_after(problem: Problem, kept: int) -> None:
    cut = {name: value.clone() for name, value in problem.upstream.items()}
    for value in cut.values():
        value[..., kept:, :] = 0
    got = candidate_run(problem, lambda m: problem.run(m, problem.inputs, gradients=True, upstream=cut))
    own = problem.run(problem.reference, problem.inputs, gradients=True, upstream=cut)
    for name in problem.names:
        mine, its = got[f"grad {name}"], own[f"grad {name}"]
        if mine is None or its is None:
            continue
        if bool(its[..., kept:, :].any()):  # the original itself is not causal here, or not finite
            continue
        after = mine[..., kept:, :]
        if bool(after.any()):
            raise Mismatch(
                f"grad {name}: outputs up to position {kept - 1} have a gradient in later positions, "
                f"up to {float(after.abs().max()):.3g}; the original's is exactly zero",
                where=f"grad {name}",
            )


CHECKS = (Check.of("causality", causality, CaseSpace(max_seq_len=140, max_head_size=64), more_on_gpu=True),)
