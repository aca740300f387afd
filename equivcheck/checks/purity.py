"""Purity: a run leaves inputs, weights, flags and generators unchanged, and does not depend on earlier runs."""

import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.checks.base.candidate_run import candidate_run, first_line
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.checks.base.findings import finding
from equivcheck.checks.base.inference import called_in_inference_mode
from equivcheck.checks.base.retained_memory import check_growth
from equivcheck.checks.base.spaces import SMALL
from equivcheck.checks.base.within import within
from equivcheck.errors import Mismatch, Raised
from equivcheck.pairs.backward_pass import backward, dense, flow_back
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results
from equivcheck.pairs.sides import CANDIDATE, REFERENCE, failure, foreign
from equivcheck.pairs.weight_transfer import gradients_of
from equivcheck.runtime import global_state
from equivcheck.runtime.device import type_of
from equivcheck.runtime.rng import generator_state, seeded

__all__ = ["purity"]


def purity(pair: Pair, case: Case) -> CaseResult:
    """A run has no effect but its result; a later run gives the same, and two overlapping runs do not mix."""
    with finding("settings"):
        _no_setting_switched(pair)
    problem = pair.problem(case)
    problem.run(problem.reference, problem.inputs, gradients=False)
    flags = global_state.now()  # before the candidate is built
    candidate_run(problem, lambda module: _unchanged(problem, module, flags))
    with finding("memory"):
        candidate_run(problem, lambda module: check_growth(problem, module))
    if pair.traits.from_config:
        with finding("seeding"):
            candidate_run(problem, lambda _: _generators_when_built(pair, case), reference=problem.make_reference)
    compared = CaseResult.together((_as_at_first(problem), _accumulated(problem), _overlapping(pair, problem)))
    if pair.traits.from_config:
        with finding("inference"), within("after a first call in inference mode"):
            candidate_run(
                problem,
                lambda _: _trained_after_inference(problem, problem.another_candidate()),
                reference=lambda: _trained_after_inference(problem, problem.make_reference()),
            )
    return compared


def _no_setting_switched(pair: Pair) -> None:
    if pair.switched_at_import:
        settings = ", ".join(pair.switched_at_import)
        raise Mismatch(f"importing the candidate changed global settings: {settings}", where=pair.switched_at_import[0])


def _as_at_first(problem: Problem) -> CaseResult:
    """Compare the outputs after all these calls with the oracle's."""

    def run(module: nn.Module) -> Results:
        return problem.run(module, problem.inputs, gradients=False)

    candidate_results = candidate_run(problem, run)
    with within("after many calls"):
        return compare_all(
            problem, problem.truth(gradients=True), candidate_results, lambda: run(problem.reference), candidate_results
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


def _tensors_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in (*module.named_parameters(), *module.named_buffers())}


def _unchanged(problem: Problem, module: nn.Module, flags: Mapping[str, object]) -> Results:
    inputs = [x.clone() for x in problem.inputs]
    tensors_before = _tensors_of(module)
    mode = {name: sub.training for name, sub in module.named_modules()}
    with seeded(problem.case.seed, problem.device):
        states = _states(problem.device)
        called_in_inference_mode(problem, module)
        states_after = _states(problem.device)
    drops = problem.case.training and problem.case.attn_pdrop + problem.case.resid_pdrop > 0
    with finding("generator"):
        for name, state in states.items():
            if not torch.equal(state, states_after[name]) and (not drops or name != str(problem.device)):
                raise Mismatch(
                    f"the generator of {name} was drawn from, and there is nothing random to draw", where="generator"
                )
    _check_not_overwritten(problem, module)
    trainable = {name: p.requires_grad for name, p in module.named_parameters()}
    python = random.getstate()
    problem.run(module, problem.inputs, gradients=True)
    with finding("seeding"):
        if random.getstate() != python:
            raise Mismatch("Python's own generator was drawn from or seeded", where="generator")
    with finding("flags"):
        if {name: p.requires_grad for name, p in module.named_parameters()} != trainable:
            raise Mismatch(
                "a forward and backward pass switched which parameters require gradients", where="requires_grad"
            )
    for x, input_before in zip(problem.inputs, inputs, strict=True):
        if not torch.equal(torch.nan_to_num(x), torch.nan_to_num(input_before)):
            raise Mismatch("the input was changed in place", where="input")
    tensors_after = _tensors_of(module)
    if list(tensors_after) != list(tensors_before):
        raise Mismatch(
            f"parameters or buffers came or went: {sorted(set(tensors_after) ^ set(tensors_before))}", where="state"
        )
    for name, value in tensors_before.items():
        if not torch.equal(torch.nan_to_num(value), torch.nan_to_num(tensors_after[name])):
            raise Mismatch(f"{name} was changed by a forward and backward pass", where=name)
    changed = global_state.switched(flags)
    with finding("settings"):
        if changed:
            raise Mismatch(f"global settings were changed: {', '.join(changed)}", where=changed[0])
    with finding("flags"):
        if {name: sub.training for name, sub in module.named_modules()} != mode:
            raise Mismatch("a forward pass switched train or eval", where="training")
    return {}


def _generators_when_built(pair: Pair, case: Case) -> None:
    """Building a candidate may draw weights from torch's generator, but seeds none and draws nothing from Python's."""

    def built(factory: Callable[..., object], side: str, seed: int) -> tuple[Tensor, bool]:
        python = random.getstate()
        random.seed(f"before it is built, {seed}")  # not the state that a seeding constructor left last time
        before = random.getstate()
        try:
            with seeded(seed, pair.device):
                with foreign(side):
                    factory(case.config())
                state = torch.get_rng_state()
            return state, random.getstate() != before
        finally:
            random.setstate(python)

    def effects(factory: Callable[..., object], side: str) -> list[str]:
        (first, moved), (second, _) = built(factory, side, case.seed), built(factory, side, case.seed + 1)
        effects_seen = {
            "torch's generator is seeded": torch.equal(first, second),
            "Python's own generator is moved": moved,
        }
        return [what for what, is_seen in effects_seen.items() if is_seen]

    candidate_effects = effects(pair.candidate, CANDIDATE)
    reference_effects = effects(pair.reference, REFERENCE) if candidate_effects else []
    for what in candidate_effects:
        if what not in reference_effects:
            raise Mismatch(f"where the candidate is built {what}: later draws differ", where="generator")


def _check_not_overwritten(problem: Problem, module: nn.Module) -> None:
    """Without gradients, too, the next call does not overwrite a result."""
    with seeded(problem.case.seed, problem.device), torch.no_grad():
        first = problem.outputs(module, problem.inputs)
        copies = {name: value.clone() for name, value in first.items()}
        problem.outputs(module, [-x if x.is_floating_point() else x.flip(-1) for x in problem.inputs])
    for name, value in first.items():
        if not torch.equal(torch.nan_to_num(value), torch.nan_to_num(copies[name])):
            raise Mismatch(f"{name} was overwritten by the next call", where=name)


def _states(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if type_of(device).separate_generator:
        states[str(device)] = generator_state(device)
    return states


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
