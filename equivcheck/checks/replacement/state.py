"""The state of a model survives a replacement: modes, dtypes, Parameters, and shared modules and Parameters."""

from functools import partial

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case, generator
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.replacement.snapshot import REPLACED, ReplacementRun, alike, listed, replaced
from equivcheck.errors import Mismatch
from equivcheck.pairs.pair import Pair

__all__ = ["dtypes", "frozen", "modes", "parameters", "shared", "ties", "weights"]


def modes(pair: Pair, case: Case) -> CaseResult:
    """Train or eval stays as it was in every submodule."""
    replacement = replaced(pair, case, lambda model: model.eval(), rate=0.5)
    _same_modes(replacement)

    def toggle(model: nn.Module, others: bool) -> None:
        bits = torch.rand(len(list(model.modules())), generator=generator(case, "modes")) < 0.5
        for module, bit in zip(model.modules(), bits.tolist(), strict=True):
            module.training = bit != others

    for others in (False, True):  # each module is in both modes once
        _same_modes(replaced(pair, case, partial(toggle, others=others)))
    return replacement.compare_all()


def _same_modes(replacement: ReplacementRun) -> None:
    after = replacement.after.modes
    off = [name for name, mode in replacement.before.modes.items() if after.get(name, mode) != mode]
    if off:
        raise Mismatch(
            f"training={after[off[0]]} after replacing, and {not after[off[0]]} before: {listed(off)}", where=off[0]
        )


def dtypes(pair: Pair, case: Case) -> CaseResult:
    """Parameters and buffers keep dtype and device, in bfloat16 and in float64, and results are computed in them."""
    results = []
    for dtype in ("bfloat16", "float64"):
        replacement = replaced(pair, case.but(dtype=dtype))
        _same_dtypes(replacement)
        results.append(replacement.compare_all())

    def mixed(model: nn.Module) -> None:
        for number, parameter in enumerate(model.parameters()):
            parameter.data = parameter.data.to(torch.float64 if number % 2 else torch.float32)

    _same_dtypes(replaced(pair, case, mixed))
    return CaseResult.together(results)


def _same_dtypes(replacement: ReplacementRun) -> None:
    after = replacement.after.dtypes
    off = [name for name, kind in replacement.before.dtypes.items() if after.get(name, kind) != kind]
    if off:
        before, now = replacement.before.dtypes[off[0]], after[off[0]]
        message = f"{now[0]} on {now[1]} after replacing, and {before[0]} on {before[1]} before: {listed(off)}"
        raise Mismatch(message, where=off[0])


def frozen(pair: Pair, case: Case) -> CaseResult:
    """Frozen Parameters stay frozen, and trainable ones stay trainable."""

    def freeze(model: nn.Module) -> None:
        for number, parameter in enumerate(model.parameters()):
            parameter.requires_grad_(number % 2 == 0)

    replacement = replaced(pair, case, freeze)
    after = replacement.after.requires_grad
    off = [name for name, wanted in replacement.before.requires_grad.items() if after.get(name, wanted) != wanted]
    if off:
        raise Mismatch(f"requires_grad={after[off[0]]} after replacing, and not before: {listed(off)}", where=off[0])
    return replacement.compare_all()


def ties(pair: Pair, case: Case) -> CaseResult:
    """Parameters that are one object under two names stay one object."""

    def tie(model: nn.Module) -> None:
        named = dict(model.named_parameters())
        for first, *others in alike(list(named)):
            for other in others:
                path, _, name = other.rpartition(".")
                if named[other].shape == named[first].shape and name == "weight":
                    setattr(model.get_submodule(path), name, named[first])

    replacement = replaced(pair, case, tie)
    after = replacement.after.parameters
    by_object: dict[int, list[str]] = {}
    for name, parameter in replacement.before.parameters.items():
        by_object.setdefault(id(parameter), []).append(name)
    for names in by_object.values():
        if len({id(after[name]) for name in names if name in after}) > 1:
            raise Mismatch(f"one Parameter before, and several after replacing: {listed(names)}", where=names[0])
    return replacement.compare_all()


def shared(pair: Pair, case: Case) -> CaseResult:
    """A module that two blocks use stays one module."""

    def share(model: nn.Module) -> None:
        modules = dict(model.named_modules())
        for first, *others in alike(list(modules)):
            for other in others:
                path, _, name = other.rpartition(".")
                if path.rpartition(".")[2].isdigit():  # the parts of a block, the attention among them
                    setattr(model.get_submodule(path), name, modules[first])

    replacement = replaced(pair, case, share)
    after = replacement.after.modules
    by_object: dict[int, list[str]] = {}
    for name, module in replacement.before.modules.items():
        by_object.setdefault(id(module), []).append(name)
    for names in by_object.values():
        if len({id(after[name]) for name in names if name in after}) > 1:
            raise Mismatch(f"one module before, and several after replacing: {listed(names)}", where=names[0])
    return replacement.compare_all()


def parameters(pair: Pair, case: Case) -> CaseResult:
    """Every Parameter stays the same object, so that an optimizer that was built before trains the model."""
    gradients: list[dict[str, Tensor]] = []

    def accumulate(model: nn.Module) -> None:
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})

    replacement = replaced(pair, case, accumulate)
    after = replacement.after.parameters
    off = [name for name, parameter in replacement.before.parameters.items() if after.get(name) is not parameter]
    if off:
        raise Mismatch(
            f"{len(off)} of {len(replacement.before.parameters)} Parameters are other objects than before, "
            f"and in no optimizer that was built before: {listed(off)}",
            where=off[0],
        )
    lost = [name for name, gradient in gradients[0].items() if after[name].grad is not gradient]
    if lost:
        raise Mismatch(f"the gradient that had been accumulated is another, or gone: {listed(lost)}", where=lost[0])
    return CaseResult()


def weights(pair: Pair, case: Case) -> CaseResult:
    """Parameters and buffers keep their values to the last bit."""
    replacement = replaced(pair, case)
    after = replacement.after.values
    missing = [name for name in replacement.before.values if name not in after]
    if missing:
        raise Mismatch(f"gone after replacing: {listed(missing)}", where=missing[0])
    off = [name for name, value in replacement.before.values.items() if not torch.equal(value, after[name])]
    if off:
        raise Mismatch(f"other values after replacing than before: {listed(off)}", where=off[0])
    return CaseResult()


CHECKS = tuple(
    Check.of(f"replacement.{run.__name__}", run, REPLACED)
    for run in (modes, dtypes, frozen, parameters, weights, ties, shared)
)
