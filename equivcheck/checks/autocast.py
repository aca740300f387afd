"""Mixed precision: a float32 module under `torch.autocast`, held against the budget of the dtype that autocast computes in."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from equivcheck.cases import Case
from equivcheck.checks.holding import Held, Pair, candidate_run, hold
from equivcheck.checks.transformed import first_line, plain_pass
from equivcheck.comparison import Mismatch
from equivcheck.problem import Problem, Results

__all__ = ["autocast"]


def autocast(pair: Pair, case: Case) -> Held:
    """Under `torch.autocast` a float32 module gives the oracle's outputs and gradients, in the dtypes of the original's.

    Weights and inputs hold values of the narrow dtype, so that what autocast rounds first is exact, and the budget of a
    module in that dtype is that of one under autocast: the original rounds no more often there than a narrow module does.
    """
    narrow = pair.problem(case)
    problem = _in_float32(narrow)
    plain_pass(problem)
    candidate = candidate_run(problem, lambda m: m)
    what = f"torch.autocast in {case.dtype}"
    try:
        got = _run(problem, candidate, case.torch_dtype)
    except Exception as error:
        try:
            _run(problem, problem.reference, case.torch_dtype)
        except Exception as its:
            return Held(
                notes=(f"{what}: the original itself raises {type(its).__name__}, there is nothing to compare",),
                judged=False,
            )
        return Held(unsupported=(f"{what}: {first_line(error)}",))
    own = _run(problem, problem.reference, case.torch_dtype)
    try:
        for name, value in own.items():
            mine = got.get(name)
            if value is not None and mine is not None and mine.dtype != value.dtype:
                raise Mismatch(f"{name}: dtype {mine.dtype} instead of {value.dtype}", where=name)
        truth = narrow.truth(gradients=True)
        return hold(problem, truth, _wide(got), lambda: _wide(own), dict.fromkeys((*truth.values, *got)))
    except Mismatch as error:
        raise Mismatch(f"under {what}: {error}", ratio=error.ratio, where=error.where) from None


def _in_float32(narrow: Problem) -> Problem:
    """The same values in float32, weights and inputs alike."""

    def wide(x: Tensor) -> Tensor:
        return x.float() if x.is_floating_point() else x

    def make_candidate(reference: nn.Module) -> nn.Module:
        # from an original in the narrow dtype, as the pair builds it
        return narrow.make_candidate(reference.to(narrow.case.torch_dtype)).float()

    return replace(
        narrow,
        case=narrow.case.but(dtype="float32"),
        make_reference=lambda: narrow.make_reference().float(),
        make_candidate=make_candidate,
        inputs=tuple(wide(x) for x in narrow.inputs),
        upstream={name: wide(value) for name, value in narrow.upstream.items()},
        memory_key=(narrow.memory_key, "in float32"),
    )


def _run(problem: Problem, module: nn.Module, dtype: torch.dtype) -> Results:
    """Outputs and gradients of a forward pass under autocast and a backward pass outside of it, as torch advises."""

    def outputs(module: nn.Module, inputs: object) -> dict[str, Tensor]:
        with torch.autocast(problem.device.type, dtype=dtype, cache_enabled=False):
            return problem.outputs(module, inputs)  # type: ignore[arg-type]  # a sequence of tensors

    def flowing(module: nn.Module) -> dict[str, Tensor]:
        with torch.no_grad():
            made = outputs(module, problem.inputs)
        return {name: value.to(made[name].dtype) for name, value in problem.upstream.items() if name in made}

    return replace(problem, outputs=outputs).run(module, problem.inputs, gradients=True, upstream=flowing(module))


def _wide(results: Results) -> Results:
    """Exactly the same values in float32, in which they are compared."""
    return {name: None if value is None else value.float() for name, value in results.items()}
