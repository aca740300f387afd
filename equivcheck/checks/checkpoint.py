"""Checkpoints both ways: state dicts, files, and the state of an optimizer, which knows parameters by order."""

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case, generator
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.spaces import SMALL
from equivcheck.errors import Mismatch
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem
from equivcheck.pairs.weight_transfer import Transfer

__all__ = ["checkpoint"]

_CARRIED = "names differ, and weights are carried over by a transfer"


def checkpoint(pair: Pair, case: Case) -> CaseResult:
    """State dicts agree in keys, order, shapes and dtypes, and load strictly both ways, also from a file.

    The state of the original's optimizer goes on in the candidate's.
    """
    problem = pair.problem(case)
    reference, candidate = (
        problem.make_reference(),
        candidate_run(problem, lambda m: m, reference=problem.make_reference),
    )
    reference_state, candidate_state = reference.state_dict(), candidate.state_dict()
    if pair.transfer is not None and pair.transfer.declared:
        return _same_when_carried_over(pair.transfer, problem, reference, candidate)
    hint = (
        f"; where names are meant to differ, pass transfer='auto' ({pair.transfer.description})"
        if pair.transfer
        else ""
    )
    _same_state(reference_state, candidate_state, hint)
    names = [[n for n, _ in module.named_parameters()] for module in (reference, candidate)]
    if names[0] != names[1]:
        raise Mismatch(
            f"parameters in another order, so that optimizer states go astray: {names[1]}", where="parameters"
        )
    with tempfile.TemporaryDirectory(prefix="equivcheck-") as folder:
        file = Path(folder) / "checkpoint.pt"
        for whose, state, name, module in (
            ("the candidate's", candidate_state, "the original", reference),
            ("the original's", reference_state, "the candidate", candidate),
        ):
            torch.save(state, file)
            loaded = torch.load(file, weights_only=True, map_location=problem.device)
            try:
                module.load_state_dict(loaded, strict=True)
            except Exception as error:
                message = f"strict loading of {whose} checkpoint into {name} fails: {' '.join(str(error).split())}"
                raise Mismatch(message, where=name) from error
            for key, value in module.state_dict().items():
                if not torch.equal(value, reference_state[key]):
                    raise Mismatch(f"state_dict[{key!r}] of {name} is not what was loaded from a file", where=key)
    candidate_run(problem, lambda _: _optimizer_state(problem), reference=problem.make_reference)
    return CaseResult()


def _same_when_carried_over(
    transfer: Transfer, problem: Problem, reference: nn.Module, candidate: nn.Module
) -> CaseResult:
    """With a declared transfer, every weight of the candidate comes from the original, also from a file."""
    with tempfile.TemporaryDirectory(prefix="equivcheck-") as folder:
        file = Path(folder) / "checkpoint.pt"
        torch.save(reference.state_dict(), file)
        carried = transfer(torch.load(file, weights_only=True, map_location=problem.device), problem.case.config())
    for name, parameter in candidate.named_parameters():
        if name not in carried:
            raise Mismatch(f"{name} of the candidate gets no weight of the original", where=name)
        if not torch.equal(parameter, carried[name]):
            raise Mismatch(f"{name} is not what was carried over", where=name)
    counts = [sum(p.numel() for p in module.parameters()) for module in (reference, candidate)]
    if counts[0] != counts[1]:
        raise Mismatch(f"the candidate has {counts[1]} weights, and the original {counts[0]}", where="parameters")
    how = f" ({transfer.description})" if transfer.description else ""
    return CaseResult(notes=(f"{_CARRIED}{how}, and so they must from old checkpoints",))


def _same_state(reference_state: dict[str, Tensor], candidate_state: dict[str, Tensor], hint: str) -> None:
    if list(reference_state) != list(candidate_state):
        missing, extra = (
            [k for k in reference_state if k not in candidate_state],
            [k for k in candidate_state if k not in reference_state],
        )
        difference = (
            f"missing {missing}, unexpected {extra}"
            if missing or extra
            else f"in another order: {list(candidate_state)}"
        )
        raise Mismatch(f"state_dict keys differ: {difference}{hint}", where="state_dict")
    for key, value in reference_state.items():
        if (value.shape, value.dtype) != (candidate_state[key].shape, candidate_state[key].dtype):
            raise Mismatch(
                f"state_dict[{key!r}] is {tuple(candidate_state[key].shape)} {candidate_state[key].dtype}, "
                f"and {tuple(value.shape)} {value.dtype} in the original",
                where=key,
            )
        if not torch.equal(value, candidate_state[key]):
            raise Mismatch(f"state_dict[{key!r}] is not what was loaded", where=key)


def _optimizer_state(problem: Problem) -> None:
    """Step the original, load its optimizer's state into the candidate's, step both again, and compare the weights."""
    reference = problem.make_reference()
    candidate = problem.another_candidate()

    def optimizer(module: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(module.parameters(), lr=0.01, foreach=False)

    def step(module: nn.Module, by: torch.optim.Optimizer, number: int) -> None:
        for name, parameter in module.named_parameters():
            draw = torch.rand(parameter.shape, generator=generator(problem.case, f"step {number} of {name}")) * 2 - 1
            # none is so small that its square is 0 in half precision: the step would divide by it
            parameter.grad = torch.where(draw < 0, draw - 0.5, draw + 0.5).to(parameter)
        by.step()

    first = optimizer(reference)
    step(reference, first, 1)
    # a copy: an optimizer that loads a state writes into the same tensors
    state: dict[str, Any] = copy.deepcopy(first.state_dict())
    candidate.load_state_dict(reference.state_dict(), strict=True)
    second = optimizer(candidate)
    try:
        second.load_state_dict(state)
        step(candidate, second, 2)
    except Exception as error:
        message = f"the state of the original's optimizer does not fit: {' '.join(str(error).split())}"
        raise Mismatch(message, where="optimizer") from error
    step(reference, first, 2)
    candidate_parameters = dict(candidate.named_parameters())
    for name, parameter in reference.named_parameters():
        if not torch.equal(parameter, candidate_parameters[name]):
            raise Mismatch(
                f"{name} is another after a step from the original's optimizer state: "
                "its state went to another parameter",
                where=name,
            )


CHECKS = (Check.of("checkpoint", checkpoint, SMALL),)
