"""Batches: the results of a sample depend neither on its neighbours nor on its place, and a prefix stands by itself."""

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
    """Each example alone, another order of the batch and a prefix give the oracle's outputs and input gradients."""
    problem = pair.problem(case)
    order = torch.randperm(case.batch_size, generator=generator(case, "order")).to(problem.device)
    inverse = torch.argsort(order)
    half = problem.part_of_length(max(1, case.seq_len // 2))
    results = []
    if problem.allows(batch_size=1):
        results.append(_compare(problem, "each example alone", _alone))
    else:
        results.append(CaseResult(notes=("each example alone is outside of the domain",)))
    results.append(
        _compare(
            problem,
            "the batch in another order",
            lambda p, m: _edited(_run(p, m, lambda x: x[order]), lambda y: y[inverse]),
        )
    )
    if half < case.seq_len:
        results.append(_prefix(problem, half))
    else:
        results.append(CaseResult(notes=("every prefix is outside of the domain",)))
    return CaseResult.together(results)


def _run(problem: Problem, module: nn.Module, edit: Edit) -> dict[str, Tensor]:
    """Outputs and input gradients of an edited batch; a loss is a mean over the batch and left out."""
    edited = {name: value if value.dim() == 0 else edit(value) for name, value in problem.upstream.items()}
    results = problem.run(module, [edit(x) for x in problem.inputs], gradients=bool(problem.names), upstream=edited)
    names = {"output", "logits", *(f"grad {name}" for name in problem.names)}
    return {name: value for name, value in results.items() if name in names and value is not None}


def _edited(results: dict[str, Tensor], edit: Edit) -> dict[str, Tensor]:
    return {name: edit(value) for name, value in results.items()}


def _alone(problem: Problem, module: nn.Module) -> dict[str, Tensor]:
    rows = [
        _run(problem, module, lambda x, at=at: x[at : at + 1])  # type: ignore[misc]
        for at in range(problem.case.batch_size)
    ]
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def _compare(problem: Problem, what: str, run: Callable[[Problem, nn.Module], dict[str, Tensor]]) -> CaseResult:
    """Compare with the oracle of the whole batch; an original that depends on it is measured by its own error."""
    candidate_results = candidate_run(problem, lambda m: run(problem, m))

    def run_reference() -> Results:
        return dict(run(problem, problem.reference))

    with within(what):
        return compare_all(
            problem, problem.truth(gradients=True), dict(candidate_results), run_reference, list(candidate_results)
        )


def _prefix(whole: Problem, length: int) -> CaseResult:
    """Compare a prefix with the oracle of that prefix."""

    def shortened(x: Tensor) -> Tensor:
        return x[..., :length, :] if x.is_floating_point() else x[:, :length]

    problem = replace(
        whole,
        case=whole.case.but(seq_len=length),
        inputs=tuple(shortened(x) for x in whole.inputs),
        upstream={name: value if value.dim() == 0 else shortened(value) for name, value in whole.upstream.items()},
        memory_key=(whole.memory_key, "prefix"),
    )
    return _compare(problem, f"the first {length} positions alone", lambda p, m: _run(p, m, lambda x: x))


CHECKS = (Check.of("batching", batching, BATCHED, more_on_gpu=True),)
