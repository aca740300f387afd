"""Targets of a model: its results with and without them, and targets that do not count in the loss."""

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
_OFTEN = 4  # one in so many cases has targets that do not count
_NEAR = 0.25  # of the largest logit: far beyond rounding, in any dtype


def _called(problem: Problem, module: nn.Module, *given: Tensor) -> Any:
    with seeded(problem.case.seed, problem.device), torch.no_grad(), foreign():
        return module(*given)


def check_return_form(problem: Problem) -> None:
    """Check that results have the original's form: one tensor, or a tuple of as many with the loss in the same place.

    Raises:
        Mismatch: The candidate's results have another form.
    """
    calls: list[tuple[str, Sequence[Tensor]]] = [("forward", problem.inputs[:1])]
    if _targets_may_be_left_out(problem.reference):
        calls = [("forward with targets", problem.inputs), ("forward without targets", problem.inputs[:1])]
    for call, inputs in calls:

        def form(module: nn.Module, inputs: Sequence[Tensor] = inputs) -> str:
            return _form(_called(problem, module, *inputs))

        reference_form = form(problem.reference)
        candidate_form = candidate_run(problem, form)
        if candidate_form != reference_form:
            raise Mismatch(f"{call} returns {candidate_form}, and the original {reference_form}", where="forward")


def _targets_may_be_left_out(module: nn.Module) -> bool:
    return takes_targets(module) and not is_adapted(module)


def _form(result: Any) -> str:
    if isinstance(result, Tensor):
        return form_of(result)
    parts = enumerate(result) if isinstance(result, tuple | list) else [("loss", getattr(result, "loss", None))]
    losses = [str(place) for place, part in parts if isinstance(part, Tensor) and part.dim() == 0]
    return f"{form_of(result)} with {f'the loss at {losses[0]}' if losses else 'no loss'}"


def without_targets(problem: Problem) -> CaseResult:
    """Compare logits without targets with the oracle's logits with targets.

    If the original gives only the last position's logits without targets, those are compared.
    """
    if not _targets_may_be_left_out(problem.reference):
        return CaseResult()
    idx = problem.inputs[0]
    reference_logits: Tensor = tensor_of(_called(problem, problem.reference, idx))
    truth = problem.truth(gradients=True)
    whole = truth.values["logits"]
    rows = next((r for r in (slice(None), slice(-1, None), -1) if whole[:, r].shape == reference_logits.shape), None)
    if rows is None:
        return CaseResult(notes=("logits without targets have a form of their own, and were not judged",))
    shown = _rows_of(truth, rows)
    far = (reference_logits.to(whole) - shown.values["logits"]).abs().nan_to_num().max()
    if float(far) > _NEAR * float(whole.abs().nan_to_num().max()):
        return CaseResult(notes=("the original gives other logits without targets, and those were not judged",))
    candidate_results = candidate_run(problem, lambda m: {"logits": tensor_of(_called(problem, m, idx))})
    with within("without targets"):
        return compare_all(problem, shown, candidate_results, lambda: {"logits": reference_logits}, ["logits"])


def _rows_of(truth: Truth, rows: Any) -> Truth:
    """The truth of the logits at the positions `rows`."""

    def perturbed(count: int) -> Sample:
        moved = truth.sample(refined=count == truth.many).deviations["logits"]
        return Sample(count, {"logits": moved[:, :, rows]})

    return Truth({"logits": truth.values["logits"][:, rows]}, perturbed, first=truth.first, many=truth.many)


def uncounted(problem: Problem) -> CaseResult:
    """Check that targets that the original does not count, -1 or -100, do not count in the candidate's loss either."""
    case, (idx, targets) = problem.case, problem.inputs
    if not takes_targets(problem.reference) or targets.numel() < 2 or case.seed % _OFTEN:
        return CaseResult()
    left_out = torch.rand(targets.shape, generator=generator(case, "uncounted")) < 0.5
    left_out[0, 0], left_out[-1, -1] = False, True
    marked = targets.masked_fill(left_out.to(targets.device), _MARKERS[case.seed // _OFTEN % len(_MARKERS)])
    given = (idx, marked)
    # tried on the CPU: on a GPU a target that is no class makes every later call of the process fail
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
    candidate_results = candidate_run(other, lambda m: other.run(m, given, gradients=False))
    truth = other.truth(gradients=False)
    with within(f"where some targets are {int(marked.min())}, and the original does not count them"):
        return compare_all(
            other, truth, candidate_results, lambda: other.run(other.reference, given, gradients=False), ["loss"]
        )


def _on_cpu(problem: Problem, module: nn.Module, given: Sequence[Tensor]) -> Tensor | None:
    here = replace(problem, device=torch.device("cpu"))
    return here.run(module.cpu(), [x.cpu() for x in given], gradients=False)["loss"]


def _counts(problem: Problem, module: nn.Module, given: Sequence[Tensor]) -> bool:
    """Whether a model gives a finite loss for inputs with such targets."""
    losses: list[Tensor | None] = []
    if failure(lambda: losses.append(_on_cpu(problem, module, given))) is not None:
        return False
    return losses[0] is not None and bool(losses[0].isfinite())
