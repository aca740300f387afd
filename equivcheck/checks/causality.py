"""Causality: later positions never move the results of earlier ones, forward or backward."""

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


_MOVED = 2.0**-20  # of the largest value, in float64: rounding at the size of the loud inputs stays below


def causality(pair: Pair, case: Case) -> CaseResult:
    """Outputs up to a position stay within budget when everything after it is replaced, and have no gradient there.

    If the original itself is not causal, or leaks, both are compared with the oracle of the replaced input.
    """
    problem = pair.problem(case)
    problem.run(problem.reference, problem.inputs, gradients=False)
    split = 1 + int(torch.randint(max(case.seq_len - 1, 1), (), generator=generator(case, "split")))
    if split >= case.seq_len:
        return CaseResult(0.0, judged=False, applies=False)  # a single position has nothing after it
    loud = dtype_row(case.dtype).loud_value if case.seed % 2 and case.regime not in ("tiny", "near_limit") else 1.0
    later = [_replaced(problem, x, split, loud) for x in problem.inputs]
    truth = problem.truth(gradients=False)
    names = [name for name in truth.values if name != "loss"]
    changed = replace(problem, inputs=tuple(later), memory_key=(problem.memory_key, "later"))
    if not _causal(changed, truth, names, split):
        # loud values are for what a mask must keep out: where nothing does, they are beyond what either side is for
        usual = tuple(_replaced(problem, x, split, 1.0) for x in problem.inputs)
        result = _compare_on_later_input(replace(changed, inputs=usual, memory_key=(problem.memory_key, "usual")))
        return replace(result, notes=("the original is not causal", *result.notes), judged=False, applies=False)
    reference_later = problem.run(problem.reference, later, gradients=False)
    earlier = [value[..., :split, :] for name in names if (value := reference_later[name]) is not None]
    if any(bool(value.isnan().any()) for value in earlier):
        return CaseResult(None, notes=("later values that the original itself lets through as NaN were not judged",))
    candidate_later = candidate_run(problem, lambda m: problem.run(m, later, gradients=False))
    result = compare_all(
        problem, truth, candidate_later, lambda: reference_later, names, select=lambda y: y[..., :split, :]
    )
    if problem.names:
        _no_gradient_after(problem, split)
    return result


def _compare_on_later_input(problem: Problem) -> CaseResult:
    """Compare outputs and gradients on the input with replaced later positions, for an original that is not causal."""

    def run(module: nn.Module) -> Results:
        return problem.run(module, problem.inputs, gradients=bool(problem.names))

    reference_results = run(problem.reference)
    if any(value is not None and bool(value.isnan().any()) for value in reference_results.values()):
        return CaseResult(None, notes=("later values that the original itself lets through as NaN were not judged",))
    truth = problem.truth(gradients=bool(problem.names))
    candidate_results = candidate_run(problem, run)
    names = [name for name in dict.fromkeys((*truth.values, *candidate_results)) if name != "loss"]
    with within("with later positions replaced, where the original is not causal"):
        return compare_all(problem, truth, candidate_results, lambda: reference_results, names)


def _causal(changed: Problem, truth: Truth, names: Sequence[str], split: int) -> bool:
    """Whether the later positions of `changed` leave the earlier outputs of the original unmoved, in float64."""
    replaced = changed.oracle_values(gradients=False)
    for name in names:
        before, after = truth.values[name][..., :split, :], replaced[name][..., :split, :]
        moved = (before - after).abs().nan_to_num()  # a value that is not finite shows nothing
        if float(moved.max()) > _MOVED * float(before.abs().nan_to_num().max()):
            return False
    return True


def _replaced(problem: Problem, x: torch.Tensor, split: int, size: float) -> torch.Tensor:
    """The input with everything from position `split` on replaced by values of this size, in the case's layout."""
    case = problem.case
    rng = generator(case, "later")
    if not x.is_floating_point():
        other = torch.randint(case.vocab_size, x.shape, generator=rng).to(x.device)
        return torch.cat((x[:, :split], other[:, split:]), dim=1)
    other = torch.randn(x.shape, generator=rng, dtype=torch.float64).mul_(size).to(x.device, x.dtype)
    replaced = torch.cat((x[..., :split, :], other[..., split:, :]), dim=-2)
    return problem.as_user_sees(lambda t: arrange(t.contiguous(), case.layout))(replaced)


def _no_gradient_after(problem: Problem, split: int) -> None:
    """Raise Mismatch if outputs before `split` have a gradient from `split` on, and the original has none there."""
    upstream = {name: value.clone() for name, value in problem.upstream.items()}
    for value in upstream.values():
        value[..., split:, :] = 0
    candidate_results = candidate_run(
        problem, lambda m: problem.run(m, problem.inputs, gradients=True, upstream=upstream)
    )
    reference_results = problem.run(problem.reference, problem.inputs, gradients=True, upstream=upstream)
    for name in problem.names:
        candidate_gradient, reference_gradient = candidate_results[f"grad {name}"], reference_results[f"grad {name}"]
        if candidate_gradient is None or reference_gradient is None:
            continue
        if bool(reference_gradient[..., split:, :].any()):  # the original itself is not causal here, or not finite
            continue
        later = candidate_gradient[..., split:, :]
        if bool(later.any()):
            raise Mismatch(
                f"grad {name}: outputs up to position {split - 1} have a gradient in later positions, "
                f"up to {float(later.abs().max()):.3g}; the original's is exactly zero",
                where=f"grad {name}",
            )


CHECKS = (Check.of("causality", causality, CaseSpace(max_seq_len=140, max_head_size=64), more_on_gpu=True),)
