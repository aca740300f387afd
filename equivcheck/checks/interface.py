"""The interface around the numbers: signatures, attributes, submodules, and modifications."""

from collections import Counter
from dataclasses import replace

from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.checks.base.candidate_run import candidate_run
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.findings import finding
from equivcheck.checks.base.modifications import compare_modified
from equivcheck.checks.base.signatures import must_bind, must_take_keywords
from equivcheck.checks.base.spaces import SMALL
from equivcheck.checks.base.targets import check_return_form
from equivcheck.errors import Mismatch
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem, Results
from equivcheck.pairs.sides import CANDIDATE, REFERENCE, foreign
from equivcheck.runtime.exits import exits_as_errors
from equivcheck.runtime.rng import seeded

__all__ = ["interface"]

_CARRIED = "names differ, and weights are carried over by a transfer"


def interface(pair: Pair, case: Case) -> CaseResult:
    """Signatures, attributes and submodules are the original's; hooks, adapters and config fields take effect."""
    problem = pair.problem(case)
    if pair.traits.function:  # making the pair and each call check its options
        candidate_run(problem, lambda m: problem.run(m, problem.inputs, gradients=False))
        return CaseResult()
    reference = problem.reference
    candidate = _built(problem)
    with finding("signature"):
        if not pair.traits.replaces:
            must_take_keywords("the constructor", pair.reference, pair.candidate)
        must_bind("forward", reference.forward, candidate.forward)
    if not pair.traits.replaces:
        with finding("built"):
            _same_when_new(pair, case)
    if pair.traits.whole_model:
        with finding("form"):
            check_return_form(problem)
    with finding("layout"):
        _same_layout(problem)
    if pair.transfer is not None and pair.transfer.declared:
        return CaseResult(
            notes=(f"{_CARRIED}: attributes and submodules were not compared",), judged=False, applies=False
        )
    notes: list[str] = []
    with finding("attributes"):
        notes += _same_attributes(reference, candidate)
    with finding("submodules"):
        _same_submodules(reference, candidate)
    with finding("hooks"):
        notes += _same_calls(problem, reference)
    result = compare_modified(pair, problem)
    return replace(result, notes=(*notes, *result.notes))


def _same_calls(problem: Problem, reference: nn.Module) -> list[str]:
    """Each submodule with parameters is called as often as in the original; other submodules are notes."""
    notes: list[str] = []
    for gradients, how in ((False, "under no_grad"), (True, "with autograd")):
        counts = _calls(problem, reference, gradients=gradients)
        candidate_counts = candidate_run(
            problem,
            lambda m, gradients=gradients: _calls(problem, m, gradients=gradients),  # type: ignore[misc]
        )
        for name, count in counts.items():
            if candidate_counts[name] == count:
                continue
            candidate_count = candidate_counts[name]
            message = (
                f"{name} is called {_times(candidate_count)} in a forward pass {how}, "
                f"and {_times(count)} in the original"
            )
            if any(True for _ in reference.get_submodule(name).parameters()):
                raise Mismatch(f"{message}: its hooks and adapters would be missed", where=name)
            notes.append(message)
    return notes


def _built(problem: Problem) -> nn.Module:
    built: list[nn.Module] = []

    def keep(module: nn.Module) -> Results:
        built.append(module)
        return {}

    candidate_run(problem, keep, reference=problem.make_reference)
    return built[0]


def _same_when_new(pair: Pair, case: Case) -> None:
    """As built, before equivcheck chooses a mode, every submodule is in the original's mode."""
    with seeded(case.seed, pair.device):
        with foreign(REFERENCE):
            reference_modes = {name: m.training for name, m in pair.reference(case.config()).named_modules()}
        with exits_as_errors(), foreign(CANDIDATE):
            candidate_modes = {name: m.training for name, m in pair.candidate(case.config()).named_modules()}
    for name, training in reference_modes.items():
        if candidate_modes.get(name, training) != training:
            raise Mismatch(
                f"as built, {name or 'the module'} has training={candidate_modes[name]}; the original's is {training}"
            )


def _same_layout(problem: Problem) -> None:
    """The candidate's results are contiguous if the original's are: a caller's `.view()` relies on it."""
    reference_results = problem.run(problem.reference, problem.inputs, gradients=False)
    candidate_results = candidate_run(problem, lambda m: problem.run(m, problem.inputs, gradients=False))
    for name, reference_value in reference_results.items():
        candidate_value = candidate_results.get(name)
        if (
            reference_value is not None
            and candidate_value is not None
            and _is_contiguous(problem, reference_value)
            and not _is_contiguous(problem, candidate_value)
        ):
            raise Mismatch(f"{name} is not contiguous, and the original's is: a view of it fails", where=name)


def _is_contiguous(problem: Problem, value: Tensor) -> bool:
    turned = problem.heads_last and value.dim() == 4
    return (value.transpose(1, 2) if turned else value).is_contiguous()


def _same_attributes(reference: nn.Module, candidate: nn.Module) -> list[str]:
    notes = []
    for name, reference_value in vars(reference).items():
        if name.startswith("_") or name == "training":
            continue
        if not hasattr(candidate, name):
            raise Mismatch(f"attribute {name!r} of the original is missing", where=name)
        candidate_value = getattr(candidate, name)
        if isinstance(reference_value, Tensor) and candidate_value is None:
            notes.append(f"{name} holds a tensor in the original and None in the candidate")
        elif isinstance(reference_value, int | float | str | bool) and candidate_value != reference_value:
            raise Mismatch(
                f"attribute {name!r} is {candidate_value!r}, and {reference_value!r} in the original", where=name
            )
    if reference.training != candidate.training:
        raise Mismatch(f"training is {candidate.training}, and {reference.training} in the original", where="training")
    return notes


def _same_submodules(reference: nn.Module, candidate: nn.Module) -> None:
    candidate_modules = dict(candidate.named_modules())
    for name, module in reference.named_modules():
        if name not in candidate_modules:
            raise Mismatch(f"submodule {name!r} of the original is missing", where=name)
        if candidate_modules[name].training != module.training:
            raise Mismatch(f"submodule {name!r} has training={candidate_modules[name].training}", where=name)
        if isinstance(module, nn.Dropout) and getattr(candidate_modules[name], "p", None) != module.p:
            raise Mismatch(
                f"{name}.p is {getattr(candidate_modules[name], 'p', None)}, and {module.p} in the original", where=name
            )
    for name, parameter in reference.named_parameters():
        candidate_parameter = dict(candidate.named_parameters()).get(name)
        if candidate_parameter is None or candidate_parameter.requires_grad != parameter.requires_grad:
            raise Mismatch(f"parameter {name!r} is missing, or trainable where the original's is not", where=name)


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _calls(problem: Problem, module: nn.Module, *, gradients: bool) -> Counter[str]:
    """Count the calls of each submodule in one forward pass, with autograd or without."""
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


CHECKS = (Check.of("interface", interface, SMALL),)
