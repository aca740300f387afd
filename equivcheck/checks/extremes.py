"""Values that are not finite or overflow: how they spread is recorded in notes; only what is refused is judged."""

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
    """What the original takes of NaN, infinity and overflow the candidate takes, in the same shape and dtype; the rest is noted."""
    problem = pair.problem(case.but(layout="contiguous"))
    notes: list[str] = []
    for what, inputs in _extreme(problem).items():
        for gradients in (False, True):
            try:
                own = problem.run(problem.reference, inputs, gradients=gradients)
            except Exception as error:
                ensure_foreign(error)
                notes.append(f"{what}: the original itself raises {type(error).__name__}")
                continue
            with within(what, plain=True):
                got = candidate_run(problem, lambda m: problem.run(m, inputs, gradients=gradients))  # noqa: B023  # run at once
                notes += _spread(what, own, got)
    return CaseResult(notes=tuple(dict.fromkeys(notes)))


def _extreme(problem: Problem) -> Mapping[str, tuple[Tensor, ...]]:
    """The inputs with a NaN or an infinity in one position, and scaled to the limit of the dtype."""
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


def _spread(what: str, own: Results, got: Results) -> list[str]:
    notes = []
    for name, value in own.items():
        mine = got.get(name)
        if value is None or mine is None:
            continue
        if (mine.shape, mine.dtype) != (value.shape, value.dtype):
            told = f"{name} is {tuple(mine.shape)} {mine.dtype}, and {tuple(value.shape)} {value.dtype} in the original"
            raise Mismatch(told, where=name)
        its, here = int((~torch.isfinite(value)).sum()), int((~torch.isfinite(mine)).sum())
        side = "outputs" if not name.startswith("grad ") else "gradients"
        if its != here:
            notes.append(f"{what}: {'fewer' if here < its else 'more'} {side} than in the original are not finite")
    return notes


CHECKS = (Check.of("extremes", extremes, SMALL),)
