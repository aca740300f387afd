"""Refusals: what the original does not take, the candidate does not take either."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.findings import finding
from equivcheck.checks.base.spaces import SMALL
from equivcheck.errors import Mismatch
from equivcheck.pairs.cache import Memory
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem
from equivcheck.pairs.sides import CANDIDATE, REFERENCE, failure, foreign
from equivcheck.runtime.exits import exits_as_errors
from equivcheck.runtime.rng import seeded

__all__ = ["errors", "refuses_an_input"]


def errors(pair: Pair, case: Case) -> CaseResult:
    """The candidate refuses the inputs that the original refuses: too long, too wide, of another rank or dtype."""
    problem = _without_kernels(pair, case)
    refused = False
    if pair.traits.from_config:
        with finding("config"):
            refused = _same_configs(pair, case)
    candidate = candidate_run(problem, lambda module: module, reference=problem.make_reference)
    for what, (name, given) in _bad_inputs(pair, problem).items():
        if not _refuses(problem, problem.reference, given, REFERENCE):
            continue
        refused = True
        if not _refuses(problem, candidate, given, CANDIDATE):
            with finding(name):
                raise Mismatch(f"{what} is refused by the original, and the candidate runs", where=what)
    if not refused:
        return CaseResult(notes=("the original refuses nothing that is tried",), judged=False, applies=False)
    return CaseResult()


def refuses_an_input(pair: Pair, case: Case) -> bool:
    """Whether the original refuses one of the inputs that the check `errors` tries."""
    problem = _without_kernels(pair, case)
    return any(
        _refuses(problem, problem.reference, given, REFERENCE) for _, given in _bad_inputs(pair, problem).values()
    )


def _bad_inputs(pair: Pair, problem: Problem) -> dict[str, tuple[str, tuple[Tensor, ...]]]:
    """Each input that most originals refuse, in words: the finding of one that runs, and the inputs."""
    x = problem.inputs[0]
    bad_inputs: dict[str, tuple[str, Tensor]] = {}
    if not pair.traits.function:
        bad_inputs["a sequence past block_size"] = ("length", _longer(x, problem.case))
    if pair.traits.within_gpt:
        bad_inputs |= {
            "an input of another width": ("width", torch.cat((x, x), -1)),
            "an input of rank 2": ("rank", x[0]),
            "an input of rank 4": ("rank", x.unsqueeze(0)),
            "integers": ("integers", torch.zeros(x.shape, dtype=torch.long, device=x.device)),
            "another dtype": ("dtype", x.to(torch.float32 if x.dtype is torch.float64 else torch.float64)),
        }
    return {
        what: (name, (value, *(value if not v.is_floating_point() else v for v in problem.inputs[1:])))
        for what, (name, value) in bad_inputs.items()
    }


def _without_kernels(pair: Pair, case: Case) -> Problem:
    """The problem on the CPU if both sides run there.

    On a GPU an index out of range is no exception: it ends the process's use of the device.
    """
    problem = pair.problem(case)
    if pair.device.type == "cpu":
        return problem
    on_cpu = replace(pair, device=torch.device("cpu"), oracle_device=None, memory=Memory()).problem(case)

    def runs(make: Callable[[], nn.Module], side: str) -> bool:
        return failure(lambda: on_cpu.run(make(), on_cpu.inputs, gradients=False), side) is None

    both = runs(on_cpu.make_reference, REFERENCE) and runs(on_cpu.another_candidate, CANDIDATE)
    return on_cpu if both else problem


def _same_configs(pair: Pair, case: Case) -> bool:
    """Whether the original's constructor refuses a width that the heads do not divide.

    Raises:
        Mismatch: It does, and the candidate's does not.
    """
    config = case.but(n_head=2).config()
    config.n_embd = 2 * case.head_size + 1

    def refuses(factory: Callable[..., Any], side: str) -> bool:
        def build() -> None:
            with exits_as_errors(), seeded(case.seed, pair.device), foreign():
                factory(config)

        return failure(build, side) is not None

    refused = refuses(pair.reference, REFERENCE)
    if refused and not refuses(pair.candidate, CANDIDATE):
        raise Mismatch(f"n_embd={config.n_embd} with n_head=2 is refused by the original's constructor, and not here")
    return refused


def _longer(x: Tensor, case: Case) -> Tensor:
    times = case.block_size // case.seq_len + 1
    return torch.cat([x] * times, dim=1)


def _refuses(problem: Problem, module: nn.Module, inputs: tuple[Tensor, ...], side: str) -> bool:
    return failure(lambda: problem.run(module, inputs, gradients=False), side) is not None


CHECKS = (Check.of("errors", errors, SMALL, more_on_gpu=True),)
