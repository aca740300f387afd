"""Batches: what a sample gives does not depend on its neighbours, on its place, or on what comes after a prefix."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case, generator
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.base.spaces import BATCHED
from equivcheck.checks.base.within import within
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results

__all__ = ["batching"]

Edit = Callable[[Tensor], Tensor]


def batching(pair: Pair, case: Case) -> CaseResult:
    """Each example alone, the batch in another order and a prefix of the sequence give the oracle's outputs and input gradients."""
    problem = pair.problem(case)
    order = torch.randperm(case.batch_size, generator=generator(case, "order")).to(problem.device)
    back = torch.argsort(order)
    half = max(1, case.seq_len // 2)
    return CaseResult.together(
        (
            _as_in_the_batch(problem, "each example alone", _alone),
            _as_in_the_batch(
                problem,
                "the batch in another order",
                lambda p, m: _each(_run(p, m, lambda x: x[order]), lambda y: y[back]),
            ),
            _prefix(problem, half),
        )
    )


def _run(problem: Problem, module: nn.Module, edit: Edit) -> dict[str, Tensor]:
    """Outputs, and input gradients, for an edited batch; a loss is a mean over it and left out."""
    edited = {name: value if value.dim() == 0 else edit(value) for name, value in problem.upstream.items()}
    found = problem.run(module, [edit(x) for x in problem.inputs], gradients=bool(problem.names), upstream=edited)
    kept = {"output", "logits", *(f"grad {name}" for name in problem.names)}
    return {name: value for name, value in found.items() if name in kept and value is not None}


def _each(results: dict[str, Tensor], edit: Edit) -> dict[str, Tensor]:
    return {name: edit(value) for name, value in results.items()}


def _alone(problem: Problem, module: nn.Module) -> dict[str, Tensor]:
    rows = [_run(problem, module, lambda x, at=at: x[at : at + 1]) for at in range(problem.case.batch_size)]  # type: ignore[misc]
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def _as_in_the_batch(problem: Problem, what: str, run: Callable[[Problem, nn.Module], dict[str, Tensor]]) -> CaseResult:
    """Held against the oracle's whole batch; where the original itself depends on it, its own error is the measure."""
    got = candidate_run(problem, lambda m: run(problem, m))

    def own() -> Results:
        return dict(run(problem, problem.reference))

    with within(what):
        return compare_all(problem, problem.truth(gradients=True), dict(got), own, list(got))


def _prefix(whole: Problem, length: int) -> CaseResult:
    """Held against the oracle of the prefix itself."""

    def cut(x: Tensor) -> Tensor:
        return x[..., :length, :] if x.is_floating_point() else x[:, :length]

    problem = replace(
        whole,
        case=whole.case.but(seq_len=length),
        inputs=tuple(cut(x) for x in whole.inputs),
        upstream={name: value if value.dim() == 0 else cut(value) for name, value in whole.upstream.items()},
        memory_key=(whole.memory_key, "prefix"),
    )
    return _as_in_the_batch(problem, f"the first {length} positions alone", lambda p, m: _run(p, m, lambda x: x))


CHECKS = (Check.of("batching", batching, BATCHED, more_on_gpu=True),)
