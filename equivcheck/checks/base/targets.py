"""Targets of a model: what comes back with and without them, and those that are not counted."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.cases.case import generator
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.base.within import within
from equivcheck.errors import Mismatch
from equivcheck.numerics.truth import Sample, Truth
from equivcheck.pairs.forward import form_of, is_adapted, tensor_of
from equivcheck.pairs.named_outputs import takes_targets
from equivcheck.pairs.problem import Problem
from equivcheck.pairs.sides import failure, foreign
from equivcheck.runtime.rng import seeded

__all__ = ["check_return_form", "uncounted", "without_targets"]

_MARKERS = (-1, -100)  # minGPT's, and the one that torch has by default
_OFTEN = 4  # one in so many cases has targets that are not counted
_NEAR = 0.25  # of the largest logit: far beyond rounding, in any dtype


def _called(problem: Problem, module: nn.Module, *given: Tensor) -> Any:
    with seeded(problem.case.seed, problem.device), torch.no_grad(), foreign():
        return module(*given)


def check_return_form(problem: Problem) -> None:
    """A caller can take results apart as the original's: a tensor alone, a tuple of as many, the loss in its place or none."""
    given: list[tuple[str, Sequence[Tensor]]] = [("forward", problem.inputs[:1])]
    if _targets_may_be_left_out(problem.reference):
        given = [("forward with targets", problem.inputs), ("forward without targets", problem.inputs[:1])]
    for told, inputs in given:
        own = _form(_called(problem, problem.reference, *inputs))
        mine = candidate_run(problem, lambda m, inputs=inputs: _form(_called(problem, m, *inputs)))  # type: ignore[misc]
        if mine != own:
            raise Mismatch(f"{told} returns {mine}, and the original {own}", where="forward")


def _targets_may_be_left_out(module: nn.Module) -> bool:
    return takes_targets(module) and not is_adapted(module)


def _form(found: Any) -> str:
    if isinstance(found, Tensor):
        return form_of(found)
    parts = enumerate(found) if isinstance(found, tuple | list) else [("loss", getattr(found, "loss", None))]
    losses = [str(place) for place, part in parts if isinstance(part, Tensor) and part.dim() == 0]
    return f"{form_of(found)} with {f'the loss at {losses[0]}' if losses else 'no loss'}"


def without_targets(problem: Problem) -> CaseResult:
    """Without targets the logits are those with them: all, or the last position's where the original gives no more."""
    if not _targets_may_be_left_out(problem.reference):
        return CaseResult()
    idx = problem.inputs[0]
    own: Tensor = tensor_of(_called(problem, problem.reference, idx))
    truth = problem.truth(gradients=True)
    whole = truth.values["logits"]
    rows = next((r for r in (slice(None), slice(-1, None), -1) if whole[:, r].shape == own.shape), None)
    if rows is None:
        return CaseResult(notes=("logits without targets have a form of their own, and were not judged",))
    shown = _rows_of(truth, rows)
    far = (own.to(whole) - shown.values["logits"]).abs().nan_to_num().max()
    if float(far) > _NEAR * float(whole.abs().nan_to_num().max()):
        return CaseResult(notes=("the original gives other logits without targets, and those were not judged",))
    got = candidate_run(problem, lambda m: {"logits": tensor_of(_called(problem, m, idx))})
    with within("without targets"):
        return compare_all(problem, shown, got, lambda: {"logits": own}, ["logits"])


def _rows_of(truth: Truth, rows: Any) -> Truth:
    """The truth of the logits at some positions."""

    def perturbed(count: int) -> Sample:
        moved = truth.sample(refined=count == truth.many).deviations["logits"]
        return Sample(count, {"logits": moved[:, :, rows]})

    return Truth({"logits": truth.values["logits"][:, rows]}, perturbed, first=truth.first, many=truth.many)


def uncounted(problem: Problem) -> CaseResult:
    """Targets that the original does not count, -1 or -100, do not count in the candidate's loss either."""
    case, (idx, targets) = problem.case, problem.inputs
    if not takes_targets(problem.reference) or targets.numel() < 2 or case.seed % _OFTEN:
        return CaseResult()
    left_out = torch.rand(targets.shape, generator=generator(case, "uncounted")) < 0.5
    left_out[0, 0], left_out[-1, -1] = False, True
    marked = targets.masked_fill(left_out.to(targets.device), _MARKERS[case.seed // _OFTEN % len(_MARKERS)])
    given = (idx, marked)
    # tried on the CPU: on a GPU a class that there is not ends every later call of the process
    if not _counts(problem, problem.make_reference(), given):
        return CaseResult()
    try:
        candidate_run(problem, lambda m: _on_cpu(problem, copy.deepcopy(m), given))
    except Mismatch:
        if problem.device.type == "cpu":
            raise
        return CaseResult(
            notes=("targets that are not counted were not judged: the candidate does not run on the CPU",)
        )
    other = replace(problem, inputs=given, memory_key=(problem.memory_key, "uncounted"))
    got = candidate_run(other, lambda m: other.run(m, given, gradients=False))
    truth = other.truth(gradients=False)
    with within(f"where some targets are {int(marked.min())}, and the original does not count them"):
        return compare_all(other, truth, got, lambda: other.run(other.reference, given, gradients=False), ["loss"])


def _on_cpu(problem: Problem, module: nn.Module, given: Sequence[Tensor]) -> Tensor | None:
    here = replace(problem, device=torch.device("cpu"))
    return here.run(module.cpu(), [x.cpu() for x in given], gradients=False)["loss"]


def _counts(problem: Problem, module: nn.Module, given: Sequence[Tensor]) -> bool:
    """Whether a model gives a finite loss with these targets."""
    found: list[Tensor | None] = []
    if failure(lambda: found.append(_on_cpu(problem, module, given))) is not None:
        return False
    return found[0] is not None and bool(found[0].isfinite())
