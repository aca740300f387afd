"""What a run leaves as it was: inputs, weights, flags, global settings and generators; and so does building."""

import random
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.checks.base.findings import finding
from equivcheck.checks.base.inference import called_in_inference_mode
from equivcheck.errors import Mismatch
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results
from equivcheck.pairs.sides import CANDIDATE, REFERENCE, foreign
from equivcheck.runtime import global_state
from equivcheck.runtime.device import type_of
from equivcheck.runtime.rng import generator_state, seeded

__all__ = ["generators_when_built", "no_setting_switched", "unchanged"]


def no_setting_switched(pair: Pair) -> None:
    """Importing the candidate switched no global setting.

    Raises:
        Mismatch: It did.
    """
    if pair.switched_at_import:
        settings = ", ".join(pair.switched_at_import)
        raise Mismatch(f"importing the candidate changed global settings: {settings}", where=pair.switched_at_import[0])


def _tensors_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in (*module.named_parameters(), *module.named_buffers())}


def unchanged(problem: Problem, module: nn.Module, flags: Mapping[str, object]) -> Results:
    """A forward pass without autograd, one in inference mode and one with a backward pass change nothing.

    Args:
        problem: The case made real.
        module: The module to run.
        flags: The global settings from before it was built.

    Returns:
        No results.

    Raises:
        Mismatch: Something was changed.
    """
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


def generators_when_built(pair: Pair, case: Case) -> None:
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
