"""Mixed precision: a float32 module under `torch.autocast`, within the budget of the dtype that it computes in."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.base.findings import finding
from equivcheck.checks.base.spaces import TRANSFORMED
from equivcheck.checks.base.under_transforms import attempted, not_compared, plain_pass
from equivcheck.checks.base.within import within
from equivcheck.errors import Mismatch, Raised
from equivcheck.numerics.truth import Truth
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results

__all__ = ["autocast"]


def autocast(pair: Pair, case: Case) -> CaseResult:
    """Under `torch.autocast` a float32 module gives the oracle's outputs and gradients in the original's dtypes.

    Outputs under no_grad are compared as well. Weights and inputs hold values of the narrow dtype, so that the first
    rounding of autocast is exact. The budget is that of a module in the narrow dtype: the original rounds no more often
    under autocast than such a module does.
    """
    narrow = pair.problem(case)
    problem = _in_float32(narrow)
    what = f"torch.autocast in {case.dtype}"
    try:
        plain_pass(problem)
    except Raised as error:
        plain_pass(narrow)
        # it runs in the narrow dtype: checks in float32 judge whether it may refuse that
        return CaseResult(unsupported=(f"{what}: {error}",))
    candidate = candidate_run(problem, lambda m: m, reference=problem.make_reference)
    refused, candidate_runs = attempted(
        problem,
        lambda: _run(problem, candidate, case.torch_dtype),
        lambda: _run(problem, problem.make_reference(), case.torch_dtype),
    )
    if candidate_runs is None:
        return not_compared(what, refused)
    reference_runs = _run(problem, problem.reference, case.torch_dtype)
    truth = narrow.truth(gradients=True)
    results = []
    for candidate_results, reference_results, how in zip(
        candidate_runs, reference_runs, ("", " and no_grad"), strict=True
    ):
        names = [
            name
            for name in dict.fromkeys((*truth.values, *candidate_results))
            if name in reference_results or name in candidate_results
        ]
        with within(f"under {what}{how}"):
            results.append(_compare(problem, truth, candidate_results, reference_results, names))
    return CaseResult.together(results)


def _compare(
    problem: Problem, truth: Truth, candidate_results: Results, reference_results: Results, names: Sequence[str]
) -> CaseResult:
    for name, reference_value in reference_results.items():
        candidate_value = candidate_results.get(name)
        if (
            reference_value is not None
            and candidate_value is not None
            and candidate_value.dtype != reference_value.dtype
        ):
            with finding("dtype"):
                raise Mismatch(f"{name}: dtype {candidate_value.dtype} instead of {reference_value.dtype}", where=name)
    return compare_all(problem, truth, _wide(candidate_results), lambda: _wide(reference_results), names)


def _in_float32(narrow: Problem) -> Problem:
    """The same values in float32, weights and inputs alike."""

    def wide(x: Tensor) -> Tensor:
        return x.float() if x.is_floating_point() else x

    return replace(
        narrow,
        case=narrow.case.but(dtype="float32"),
        make_reference=lambda: narrow.make_reference().float(),
        # the pair builds it in the narrow dtype
        make_candidate=lambda _: narrow.another_candidate().float(),
        inputs=tuple(wide(x) for x in narrow.inputs),
        upstream={name: wide(value) for name, value in narrow.upstream.items()},
        memory_key=(narrow.memory_key, "in float32"),
    )


def _run(problem: Problem, module: nn.Module, dtype: torch.dtype) -> tuple[Results, Results]:
    """Outputs and gradients with autograd, and outputs under no_grad.

    The forward pass runs under autocast and the backward pass outside of it, as torch advises. Autocast caches the
    weights that it casts, as it does by default.
    """

    def outputs(module: nn.Module, inputs: object) -> dict[str, Tensor]:
        with torch.autocast(problem.device.type, dtype=dtype):
            return problem.outputs(module, inputs)  # type: ignore[arg-type]  # a sequence of tensors

    inside = replace(problem, outputs=outputs)
    plain = inside.run(module, problem.inputs, gradients=False)
    tensors = {name: value for name, value in plain.items() if value is not None}
    upstream = {name: value.to(tensors[name].dtype) for name, value in problem.upstream.items() if name in tensors}
    return inside.run(module, problem.inputs, gradients=True, upstream=upstream), plain


def _wide(results: Results) -> Results:
    """The same values in float32, the dtype in which they are compared."""
    return {name: None if value is None else value.float() for name, value in results.items()}


CHECKS = (Check.of("autocast", autocast, TRANSFORMED.but(max_seq_len=160)),)
