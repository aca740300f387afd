"""Attachments and edits of a caller still work after a replacement: hooks, adapters, rates and masks."""

from collections import Counter
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.modifications import adapted, parts
from equivcheck.checks.base.within import within
from equivcheck.checks.replacement.snapshot import REPLACED, listed, replaced
from equivcheck.errors import Mismatch
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem

__all__ = ["adapters", "hooks", "masks", "rates"]

_RATES = (0.0, 0.35, 0.6)


def hooks(pair: Pair, case: Case) -> CaseResult:
    """Hooks that were there before still fire, change results as they did, and go when their handles are removed."""
    counts: list[Counter[str]] = []
    handles: list[Any] = []

    def hook(model: nn.Module) -> None:
        seen: Counter[str] = Counter()
        counts.append(seen)
        for name, module in model.named_modules():
            if next(module.parameters(), None) is not None and not isinstance(module, nn.ModuleList | nn.ModuleDict):
                handles.append(module.register_forward_hook(partial(_fired, seen, name)))
                handles.append(module.register_forward_pre_hook(partial(_entered, seen, name)))

    replacement = replaced(pair, case, hook)
    candidate_counts = counts[-1]
    original = replacement.problem.make_reference()
    reference_counts = counts[-1]
    _run(replacement.problem, original)
    _run(replacement.problem, replacement.model)
    off = [name for name, count in reference_counts.items() if candidate_counts[name] != count]
    if off:
        raise Mismatch(
            f"hooks fire {candidate_counts[off[0]]} times in a forward pass, and {reference_counts[off[0]]} before: "
            f"{listed(off)}",
            where=off[0],
        )
    result = replacement.compare_all()
    _quiet_hooks_stay(pair, case)
    for handle in handles:
        handle.remove()
    candidate_counts.clear()
    _run(replacement.problem, replacement.model)
    if candidate_counts:
        fired = list(candidate_counts)
        raise Mismatch(f"hooks fire after their handles were removed: {listed(fired)}", where=fired[0])
    return result


def _quiet_hooks_stay(pair: Pair, case: Case) -> None:
    """Check hooks that a forward pass does not show: of the backward pass, of the state_dict, of the Parameters."""

    def hook(model: nn.Module) -> None:
        for module in model.modules():
            module.register_full_backward_hook(_nothing)
            module.register_full_backward_pre_hook(_nothing)
            module.register_state_dict_post_hook(_nothing)
            module.register_load_state_dict_pre_hook(_nothing)
        for parameter in model.parameters():
            parameter.register_hook(_nothing)

    def quiet(hooks: tuple[Any, ...]) -> int:
        return sum(getattr(h, "hook", h) is _nothing for h in hooks)

    replacement = replaced(pair, case, hook)
    after = replacement.after
    for name, before in replacement.before.hooks.items():
        if quiet(after.hooks.get(name, before)) < quiet(before):
            raise Mismatch("a hook of the backward pass or of the state_dict is gone", where=name)
    for name, parameter in after.parameters.items():
        if name in replacement.before.parameters and parameter.requires_grad and not parameter._backward_hooks:
            raise Mismatch(f"the hook of {name} is gone", where=name)


def _nothing(*_: Any) -> None:
    return None


def _fired(seen: Counter[str], name: str, _module: nn.Module, _args: Any, out: Any) -> Any:
    seen[name] += 1
    return out * 1.25 if isinstance(out, Tensor) else out


def _entered(seen: Counter[str], name: str, _module: nn.Module, _args: Any) -> None:
    seen[f"{name} (before)"] += 1


def _run(problem: Problem, model: nn.Module) -> None:
    problem.run(model, problem.inputs, gradients=False)


def adapters(pair: Pair, case: Case) -> CaseResult:
    """Adapters that were put in the place of linears before the replacement work on after it."""
    problem = pair.problem(case)

    def adapt(model: nn.Module) -> None:
        for name in parts(model):
            if isinstance(model.get_submodule(name), nn.Linear):
                adapted(problem, model, name)

    return replaced(pair, case, adapt).compare_all()


def rates(pair: Pair, case: Case) -> CaseResult:
    """Dropout rates that were changed before the replacement stay changed, and take effect."""

    def change(model: nn.Module) -> None:
        for number, drop in enumerate(m for m in model.modules() if isinstance(m, nn.Dropout)):
            drop.p = _RATES[number % len(_RATES)]

    replacement = replaced(pair, case, change, rate=0.5)
    after = replacement.after.rates
    off = [name for name, rate in replacement.before.rates.items() if after.get(name, rate) != rate]
    if off:
        raise Mismatch(
            f"p={after[off[0]]} after replacing, and {replacement.before.rates[off[0]]} before: {listed(off)}",
            where=off[0],
        )

    def none(model: nn.Module) -> None:
        for drop in model.modules():
            if isinstance(drop, nn.Dropout):
                drop.p = 0.0

    with within("in train mode, with every p = 0", plain=True):
        return replaced(pair, case.but(training=True), none, rate=0.5).compare_all()


def masks(pair: Pair, case: Case) -> CaseResult:
    """A mask that was edited before the replacement is kept, and takes effect."""
    edited: list[str] = []

    def edit(model: nn.Module) -> None:
        for name, buffer in model.named_buffers():
            square = buffer.dim() >= 2 and buffer.shape[-1] == buffer.shape[-2]
            if square and bool(((buffer == 0) | (buffer == 1)).all()):
                width = max(2, (case.seq_len + 1) // 2)
                buffer[..., :width, :width] = 1  # a prefix that sees all of itself
                edited.append(name)

    replacement = replaced(pair, case, edit)
    if not edited:
        return CaseResult(
            notes=("the original has no buffer that is a mask of zeros and ones",), judged=False, applies=False
        )
    after = replacement.after.values
    before = replacement.before.values
    off = [
        name for name in before if name in edited and not torch.equal(before[name], after.get(name, before[name][:0]))
    ]
    if off:
        raise Mismatch(f"the edited mask is another after replacing: {listed(off)}", where=off[0])
    with within("with a mask that lets a prefix see all of itself", plain=True):
        return replacement.compare_all()


CHECKS = tuple(Check.of(f"replacement.{run.__name__}", run, REPLACED) for run in (hooks, adapters, rates, masks))
