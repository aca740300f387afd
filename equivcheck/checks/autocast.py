"""Mixed precision: a float32 module under `torch.autocast`, held against the budget of the dtype that autocast computes in."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.base.spaces import TRANSFORMED
from equivcheck.checks.base.under_transforms import attempted, not_compared, plain_pass
from equivcheck.checks.base.within import within
from equivcheck.errors import Mismatch
from equivcheck.numerics.truth import Truth
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results

__all__ = ["autocast"]


def autocast(pair: Pair, case: Case) -> CaseResult:
    """Under `torch.autocast` a float32 module gives the oracle's outputs and gradients, and under no_grad, in the right dtypes.

    Weights and inputs hold values of the narrow dtype, so that what autocast rounds first is exact, and the budget of a
    module in that dtype is that of one under autocast: the original rounds no more often there than a narrow module does.
    """
    narrow = pair.problem(case)
    problem = _in_float32(narrow)
    plain_pass(problem)
    candidate = candidate_run(problem, lambda m: m, reference=problem.make_reference)
    what = f"torch.autocast in {case.dtype}"
    refused, got = attempted(
        problem,
        lambda: _run(problem, candidate, case.torch_dtype),
        lambda: _run(problem, problem.make_reference(), case.torch_dtype),
    )
    if got is None:
        return not_compared(what, refused)
    own = _run(problem, problem.reference, case.torch_dtype)
    truth = narrow.truth(gradients=True)
    helds = []
    for mine, original, how in zip(got, own, ("", " and no_grad"), strict=True):
        names = [name for name in dict.fromkeys((*truth.values, *mine)) if name in original or name in mine]
        with within(f"under {what}{how}"):
            helds.append(_hold(problem, truth, mine, original, names))
    return CaseResult.together(helds)


def _hold(problem: Problem, truth: Truth, mine: Results, its: Results, names: Sequence[str]) -> CaseResult:
    for name, value in its.items():
        found = mine.get(name)
        if value is not None and found is not None and found.dtype != value.dtype:
            raise Mismatch(f"{name}: dtype {found.dtype} instead of {value.dtype}", where=name)
    return compare_all(problem, truth, _wide(mine), lambda: _wide(its), names)


def _in_float32(narrow: Problem) -> Problem:
    """The same values in float32, weights and inputs alike."""

    def wide(x: Tensor) -> Tensor:
        return x.float() if x.is_floating_point() else x

    return replace(
        narrow,
        case=narrow.case.but(dtype="float32"),
        make_reference=lambda: narrow.make_reference().float(),
        # from an original in the narrow dtype, as the pair builds it
        make_candidate=lambda _: narrow.another_candidate().float(),
        inputs=tuple(wide(x) for x in narrow.inputs),
        upstream={name: wide(value) for name, value in narrow.upstream.items()},
        memory_key=(narrow.memory_key, "in float32"),
    )


def _run(problem: Problem, module: nn.Module, dtype: torch.dtype) -> tuple[Results, Results]:
    """Outputs and gradients of a forward pass under autocast and a backward pass outside of it, as torch advises.

    And outputs under no_grad. Autocast keeps the weights that it casts, as it does by default.
    """

    def outputs(module: nn.Module, inputs: object) -> dict[str, Tensor]:
        with torch.autocast(problem.device.type, dtype=dtype):
            return problem.outputs(module, inputs)  # type: ignore[arg-type]  # a sequence of tensors

    inside = replace(problem, outputs=outputs)
    plain = inside.run(module, problem.inputs, gradients=False)
    made = {name: value for name, value in plain.items() if value is not None}
    flowing = {name: value.to(made[name].dtype) for name, value in problem.upstream.items() if name in made}
    return inside.run(module, problem.inputs, gradients=True, upstream=flowing), plain


def _wide(results: Results) -> Results:
    """Exactly the same values in float32, in which they are compared."""
    return {name: None if value is None else value.float() for name, value in results.items()}


CHECKS = (Check.of("autocast", autocast, TRANSFORMED.but(max_seq_len=160)),)
