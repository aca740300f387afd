"""Values that are not finite or overflow: refusals, shapes and dtypes are judged; how such values spread is a note."""

from collections.abc import Mapping

import torch
from torch import Tensor

from equivcheck.cases.case import Case
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.spaces import SMALL
from equivcheck.checks.base.within import within
from equivcheck.errors import Mismatch
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results
from equivcheck.pairs.sides import ensure_foreign

__all__ = ["extremes"]


def extremes(pair: Pair, case: Case) -> CaseResult:
    """The candidate takes the NaN, infinity and overflow that the original takes, in the same shape and dtype."""
    problem = pair.problem(case.but(layout="contiguous"))
    notes: list[str] = []
    for what, inputs in _extreme(problem).items():
        for gradients in (False, True):
            try:
                reference_results = problem.run(problem.reference, inputs, gradients=gradients)
            except Exception as error:
                ensure_foreign(error)
                notes.append(f"{what}: the original itself raises {type(error).__name__}")
                continue
            with within(what, plain=True):
                candidate_results = candidate_run(
                    problem,
                    lambda m: problem.run(m, inputs, gradients=gradients),  # noqa: B023  # run at once
                )
                notes += _spread(what, reference_results, candidate_results)
    return CaseResult(notes=tuple(dict.fromkeys(notes)))


def _extreme(problem: Problem) -> Mapping[str, tuple[Tensor, ...]]:
    """The inputs with NaN or infinity in one position, and scaled to the limit of the dtype."""
    limit = torch.finfo(problem.case.torch_dtype).max
    last, first = problem.case.seq_len - 1, 0

    def put(value: float, at: int) -> tuple[Tensor, ...]:
        changed = []
        for x in problem.inputs:
            x = x.clone()
            x[..., at, :] = value
            changed.append(x)
        return tuple(changed)

    def scaled(x: Tensor) -> Tensor:
        greatest = x.abs().max()
        return x * (limit / 4 / torch.where(greatest == 0, 1, greatest))

    return {
        "NaN in the last position": put(float("nan"), last),
        "an infinity in the first position": put(float("inf"), first),
        "inputs near the largest number of the dtype": tuple(scaled(x) for x in problem.inputs),
    }


def _spread(what: str, reference_results: Results, candidate_results: Results) -> list[str]:
    notes = []
    for name, reference_value in reference_results.items():
        candidate_value = candidate_results.get(name)
        if reference_value is None or candidate_value is None:
            continue
        if (candidate_value.shape, candidate_value.dtype) != (reference_value.shape, reference_value.dtype):
            raise Mismatch(
                f"{name} is {tuple(candidate_value.shape)} {candidate_value.dtype}, "
                f"and {tuple(reference_value.shape)} {reference_value.dtype} in the original",
                where=name,
            )
        reference_count, candidate_count = (
            int((~torch.isfinite(reference_value)).sum()),
            int((~torch.isfinite(candidate_value)).sum()),
        )
        side = "outputs" if not name.startswith("grad ") else "gradients"
        if reference_count != candidate_count:
            count = "fewer" if candidate_count < reference_count else "more"
            notes.append(f"{what}: {count} {side} than in the original are not finite")
    return notes


CHECKS = (Check.of("extremes", extremes, SMALL),)
