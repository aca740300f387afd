"""Purity: a run leaves inputs, weights, flags and generators unchanged, and does not depend on earlier runs."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from equivcheck.cases.case import Case
from equivcheck.checks.base.candidate_run import candidate_run, first_line
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.base.findings import finding
from equivcheck.checks.base.retained_memory import check_growth
from equivcheck.checks.base.side_effects import generators_when_built, no_setting_switched, unchanged
from equivcheck.checks.base.spaces import SMALL
from equivcheck.checks.base.within import within
from equivcheck.checks.lengths import first_positions
from equivcheck.errors import Raised
from equivcheck.pairs.backward_pass import backward, dense, flow_back
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results
from equivcheck.pairs.sides import failure
from equivcheck.pairs.weight_transfer import gradients_of
from equivcheck.runtime import global_state
from equivcheck.runtime.rng import seeded

__all__ = ["purity"]


def purity(pair: Pair, case: Case) -> CaseResult:
    """A run has no effect but its result; a later run gives the same, and two overlapping runs do not mix."""
    with finding("settings"):
        no_setting_switched(pair)
    problem = pair.problem(case)
    problem.run(problem.reference, problem.inputs, gradients=False)
    flags = global_state.now()  # before the candidate is built
    candidate_run(problem, lambda module: unchanged(problem, module, flags))
    with finding("memory"):
        candidate_run(problem, lambda module: check_growth(problem, module))
    if pair.traits.from_config:
        with finding("seeding"):
            candidate_run(problem, lambda _: generators_when_built(pair, case), reference=problem.make_reference)
    compared = CaseResult.together(
        (_as_at_first(problem), _at_another_length(problem), _accumulated(problem), _overlapping(pair, problem))
    )
    if pair.traits.from_config:
        with finding("inference"), within("after a first call in inference mode"):
            candidate_run(
                problem,
                lambda _: _trained_after_inference(problem, problem.another_candidate()),
                reference=lambda: _trained_after_inference(problem, problem.make_reference()),
            )
    return compared


def _as_at_first(problem: Problem) -> CaseResult:
    """Compare the outputs after all these calls with the oracle's."""

    def run(module: nn.Module) -> Results:
        return problem.run(module, problem.inputs, gradients=False)

    candidate_results = candidate_run(problem, run)
    with within("after many calls"):
        return compare_all(
            problem, problem.truth(gradients=True), candidate_results, lambda: run(problem.reference), candidate_results
        )


def _at_another_length(problem: Problem) -> CaseResult:
    """Compare a shorter sequence, after all these calls at the whole length, with its oracle."""
    case = problem.case
    length = problem.part_of_length((case.seq_len + 1) // 2)
    if length == case.seq_len or case.mask or case.kv_len not in (0, case.seq_len):
        return CaseResult()
    part = first_positions(problem, length)
    gradients = bool(problem.names)

    def run(module: nn.Module) -> Results:
        problem.run(module, problem.inputs, gradients=False)
        return part.run(module, part.inputs, gradients=gradients)

    candidate_results = candidate_run(part, run)
    with within(f"the first {length} positions after a call with {case.seq_len}"):
        return compare_all(
            part, part.truth(gradients=gradients), candidate_results, lambda: run(part.reference), candidate_results
        )


def _accumulated(problem: Problem) -> CaseResult:
    """Compare gradients after two backward passes: the second adds to the first's, in inputs and in parameters."""
    result = _compare_gradients(
        problem, partial(_twice, problem), "after two backward passes, each of half the upstream gradient"
    )
    run_retained = partial(_twice, problem, retained=True)
    what = "after two backward passes through one graph, each of half the upstream gradient"
    refusal = failure(lambda: run_retained(problem.reference))
    if refusal is not None:  # the candidate need not do it either
        note = f"a second backward pass through one graph is not judged: the original raises {first_line(refusal)}"
        return replace(result, notes=(*result.notes, note))
    try:
        return CaseResult.together((result, _compare_gradients(problem, run_retained, what)))
    except Raised as error:  # a loud refusal, as by checkpointing and compiled graphs
        note = f"a second backward pass through one graph is refused: {first_line(error)}"
        return replace(result, notes=(*result.notes, note))


def _twice(problem: Problem, module: nn.Module, *, retained: bool = False) -> Results:
    """The gradients of two backward passes, each of half the upstream gradient; `retained`: through the same graph."""
    leaves = [x.detach().clone().requires_grad_() if x.is_floating_point() else x for x in problem.inputs]
    parameters = {name: p for name, p in module.named_parameters() if p.requires_grad}
    for parameter in parameters.values():
        parameter.grad = None
    out: Results = {}
    for second in (False, True):
        if not (second and retained):
            with seeded(problem.case.seed, problem.device):
                out = dict(problem.outputs(module, leaves))
        differentiable = {n: v for n, v in out.items() if v is not None and v.requires_grad and n in problem.upstream}
        flow_back(
            [(v, problem.upstream[n] / 2) for n, v in differentiable.items()], retain_graph=retained and not second
        )
    gradients: Results = {f"grad {name}": dense(g) for name, g in gradients_of(module).items()}
    floating = [x for x in leaves if x.is_floating_point()]
    gradients |= {f"grad {name}": x.grad for name, x in zip(problem.names, floating, strict=False)}
    for parameter in parameters.values():
        parameter.grad = None
    return gradients


def _compare_gradients(problem: Problem, run: Callable[[nn.Module], Results], what: str) -> CaseResult:
    truth = problem.truth(gradients=True)
    candidate_results = candidate_run(problem, run)
    names = [name for name in dict.fromkeys((*truth.values, *candidate_results)) if name.startswith("grad ")]
    with within(what):
        return compare_all(problem, truth, candidate_results, lambda: run(problem.reference), names)


def _trained_after_inference(problem: Problem, module: nn.Module) -> Results:
    """Train a module whose first call is in inference mode: what it keeps from there must not stand in the way."""
    with seeded(problem.case.seed, problem.device), torch.inference_mode():
        problem.outputs(module, problem.inputs)
    return problem.run(module, problem.inputs, gradients=True)


def _overlapping(pair: Pair, problem: Problem) -> CaseResult:
    """Compare two forward passes followed by their backward passes, each with the oracle for its input."""
    case = problem.case
    if not problem.names:
        return CaseResult()
    # other inputs for the same weights
    other = pair.problem(case.but(seed=case.seed + 1))
    both = (problem, replace(problem, inputs=other.inputs, memory_key=(problem.memory_key, "other inputs")))

    def run(module: nn.Module) -> list[Results]:
        with seeded(case.seed, problem.device):
            leaves = [[x.detach().requires_grad_() for x in p.inputs] for p in both]
            outs = [problem.outputs(module, given) for given in leaves]
            runs = []
            for given, out in zip(leaves, outs, strict=True):
                roots = [(value, problem.upstream[n]) for n, value in out.items() if value.requires_grad]
                backward(roots, module)
                outputs: Results = {name: value.detach() for name, value in out.items()}
                runs.append(outputs | {f"grad {n}": x.grad for n, x in zip(problem.names, given, strict=True)})
        return runs

    candidate_runs = candidate_run(problem, run)
    results = []
    for which, p in enumerate(both):

        def run_reference(which: int = which) -> Results:
            return run(problem.reference)[which]

        with within(f"{('the first', 'the second')[which]} of two overlapping runs"):
            results.append(
                compare_all(
                    p, p.truth(gradients=True), candidate_runs[which], run_reference, list(candidate_runs[which])
                )
            )
    return CaseResult.worst(results)


CHECKS = (Check.of("purity", purity, SMALL, by_features=True),)
