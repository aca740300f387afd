"""The contract around the numbers: signatures, attributes, submodules, what is followed, and what is refused."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.modifications import compare_modified
from equivcheck.checks.base.signatures import must_bind, must_take_keywords
from equivcheck.checks.base.spaces import SMALL
from equivcheck.checks.base.targets import check_return_form
from equivcheck.errors import Mismatch
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results
from equivcheck.pairs.sides import CANDIDATE, REFERENCE, failure, foreign
from equivcheck.runtime.exits import exits_as_errors
from equivcheck.runtime.rng import seeded

__all__ = ["errors", "interface"]

_CARRIED = "names differ, and weights are carried over by a transfer"


def interface(pair: Pair, case: Case) -> CaseResult:
    """Signatures, attributes and submodules are the original's; hooks, adapters and fields of the config are followed."""
    problem = pair.problem(case)
    if pair.traits.function:  # that its options bind is found out where the pair is made, and seen in every call
        candidate_run(problem, lambda m: problem.run(m, problem.inputs, gradients=False))
        return CaseResult()
    if not pair.traits.replaces:
        must_take_keywords("the constructor", pair.reference, pair.candidate)
    reference = problem.reference
    candidate = _built(problem)
    must_bind("forward", reference.forward, candidate.forward)
    if not pair.traits.replaces:
        _same_when_new(pair, case)
    if pair.traits.whole_model:
        check_return_form(problem)
    _same_layout(problem)
    if pair.transfer is not None and pair.transfer.declared:
        return CaseResult(notes=(f"{_CARRIED}: attributes and submodules were not compared",), judged=False)
    notes = _same_attributes(reference, candidate)
    _same_submodules(reference, candidate)
    for gradients, how in ((False, "under no_grad"), (True, "with autograd")):
        counts = _calls(problem, reference, gradients=gradients)
        candidate_counts = candidate_run(
            problem,
            lambda m, gradients=gradients: _calls(problem, m, gradients=gradients),  # type: ignore[misc]
        )
        for name, count in counts.items():
            if candidate_counts[name] == count:
                continue
            here = candidate_counts[name]
            message = f"{name} is called {_times(here)} in a forward pass {how}, and {_times(count)} in the original"
            if any(True for _ in reference.get_submodule(name).parameters()):
                raise Mismatch(f"{message}: its hooks and adapters would be missed", where=name)
            notes.append(message)
    held = compare_modified(pair, problem)
    return replace(held, notes=(*notes, *held.notes))


def _built(problem: Problem) -> nn.Module:
    box: list[nn.Module] = []

    def keep(module: nn.Module) -> Results:
        box.append(module)
        return {}

    candidate_run(problem, keep, reference=problem.make_reference)
    return box[0]


def _same_when_new(pair: Pair, case: Case) -> None:
    """As the factories make them, before anybody chose a mode: training, or not, in every submodule."""
    with seeded(case.seed, pair.device):
        with foreign(REFERENCE):
            its = {name: m.training for name, m in pair.reference(case.config()).named_modules()}
        with exits_as_errors(), foreign(CANDIDATE):
            mine = {name: m.training for name, m in pair.candidate(case.config()).named_modules()}
    for name, training in its.items():
        if mine.get(name, training) != training:
            raise Mismatch(f"as built, {name or 'the module'} has training={mine[name]}; the original's is {training}")


def _same_layout(problem: Problem) -> None:
    """Where the original's result is contiguous the candidate's is: a caller's `.view()` relies on it."""
    own = problem.run(problem.reference, problem.inputs, gradients=False)
    got = candidate_run(problem, lambda m: problem.run(m, problem.inputs, gradients=False))
    for name, value in own.items():
        mine = got.get(name)
        if value is not None and mine is not None and value.is_contiguous() and not mine.is_contiguous():
            raise Mismatch(f"{name} is not contiguous, and the original's is: a view of it fails", where=name)


def _same_attributes(reference: nn.Module, candidate: nn.Module) -> list[str]:
    notes = []
    for name, value in vars(reference).items():
        if name.startswith("_") or name == "training":
            continue
        if not hasattr(candidate, name):
            raise Mismatch(f"attribute {name!r} of the original is missing", where=name)
        mine = getattr(candidate, name)
        if isinstance(value, Tensor) and mine is None:
            notes.append(f"{name} holds a tensor in the original and None in the candidate")
        elif isinstance(value, int | float | str | bool) and mine != value:
            raise Mismatch(f"attribute {name!r} is {mine!r}, and {value!r} in the original", where=name)
    if reference.training != candidate.training:
        raise Mismatch(f"training is {candidate.training}, and {reference.training} in the original", where="training")
    return notes


def _same_submodules(reference: nn.Module, candidate: nn.Module) -> None:
    found = dict(candidate.named_modules())
    for name, module in reference.named_modules():
        if name not in found:
            raise Mismatch(f"submodule {name!r} of the original is missing", where=name)
        if found[name].training != module.training:
            raise Mismatch(f"submodule {name!r} has training={found[name].training}", where=name)
        if isinstance(module, nn.Dropout) and getattr(found[name], "p", None) != module.p:
            raise Mismatch(f"{name}.p is {getattr(found[name], 'p', None)}, and {module.p} in the original", where=name)
    for name, parameter in reference.named_parameters():
        mine = dict(candidate.named_parameters()).get(name)
        if mine is None or mine.requires_grad != parameter.requires_grad:
            raise Mismatch(f"parameter {name!r} is missing, or trainable where the original's is not", where=name)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _calls(problem: Problem, module: nn.Module, *, gradients: bool) -> Counter[str]:
    """How often each submodule's forward hook fires in one forward pass, with autograd or without."""
    seen: Counter[str] = Counter()
    handles = [
        sub.register_forward_hook(lambda *_, name=name: seen.update([name]))
        for name, sub in module.named_modules()
        if name and not isinstance(sub, nn.ModuleList | nn.ModuleDict)
    ]
    try:
        problem.run(module, problem.inputs, gradients=gradients)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def errors(pair: Pair, case: Case) -> CaseResult:
    """What the original refuses, the candidate refuses: too long, too wide, of another rank, of another dtype."""
    problem = pair.problem(case)
    x = problem.inputs[0]
    cells = {"a sequence past block_size": _longer(x, case)} if not pair.traits.function else {}
    if pair.traits.within_gpt:
        cells |= {
            "an input of another width": torch.cat((x, x), -1),
            "an input of rank 2": x[0],
            "an input of rank 4": x.unsqueeze(0),
            "integers": torch.zeros(x.shape, dtype=torch.long, device=x.device),
            "another dtype": x.to(torch.float32 if x.dtype is torch.float64 else torch.float64),
        }
    if pair.traits.from_config:
        _same_configs(pair, case)
    candidate = _built(problem)
    for what, value in cells.items():
        given = (value, *(value if not v.is_floating_point() else v for v in problem.inputs[1:]))
        if _refuses(problem, problem.reference, given, REFERENCE) and not _refuses(
            problem, candidate, given, CANDIDATE
        ):
            raise Mismatch(f"{what} is refused by the original, and the candidate runs", where=what)
    return CaseResult()


def _same_configs(pair: Pair, case: Case) -> None:
    """A width that the heads do not divide is refused by both constructors, or by none."""
    config = case.but(n_head=2).config()
    config.n_embd = 2 * case.head_size + 1

    def refuses(factory: Callable[..., Any], side: str) -> bool:
        def build() -> None:
            with exits_as_errors(), seeded(case.seed, pair.device), foreign():
                factory(config)

        return failure(build, side) is not None

    if refuses(pair.reference, REFERENCE) and not refuses(pair.candidate, CANDIDATE):
        raise Mismatch(f"n_embd={config.n_embd} with n_head=2 is refused by the original's constructor, and not here")


def _longer(x: Tensor, case: Case) -> Tensor:
    times = case.block_size // case.seq_len + 1
    return torch.cat([x] * times, dim=1)


def _refuses(problem: Problem, module: nn.Module, inputs: tuple[Tensor, ...], side: str) -> bool:
    return failure(lambda: problem.run(module, inputs, gradients=False), side) is not None


CHECKS = (Check.of("interface", interface, SMALL), Check.of("errors", errors, SMALL, more_on_gpu=True))
