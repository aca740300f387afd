"""The result and the reach of a replacement: the model, its attentions in all places, and nothing else."""

import warnings
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case
from equivcheck.checks.base.check import CaseResult, Check
from equivcheck.checks.base.modifications import with_field
from equivcheck.checks.base.within import within
from equivcheck.checks.replacement.snapshot import REPLACED, ModelSnapshot, listed, replaced
from equivcheck.errors import Mismatch
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.sides import CANDIDATE, ensure_foreign, foreign
from equivcheck.runtime.exits import exits_as_errors
from equivcheck.runtime.patch_guard import classes_restored
from equivcheck.runtime.rng import seeded

__all__ = ["blocks", "layers", "others", "process", "returned", "root", "twice"]


def returned(pair: Pair, case: Case) -> CaseResult:
    """The same model object comes back, and computes the original's results."""
    replacement = replaced(pair, case)
    if not isinstance(replacement.returned, nn.Module):
        raise Mismatch(
            f"{type(replacement.returned).__name__} is returned instead of the model", where="the returned object"
        )
    if replacement.returned is not replacement.given:
        raise Mismatch(
            "another object is returned than the model that was given: whoever holds that one goes on with it",
            where="the model",
        )
    return replacement.compare_all()


def layers(pair: Pair, case: Case) -> CaseResult:
    """If a module is replaced, so is every other of its class, in all layers and inside of other modules."""
    replacement = replaced(pair, case)
    changed = replacement.before.changed(replacement.after)
    if not changed:
        return CaseResult(notes=("nothing was replaced, the model is as it was",), judged=False, applies=False)
    kinds = {replacement.before.kinds[name] for name in changed}
    left = [name for name, kind in replacement.before.kinds.items() if kind in kinds and name not in changed]
    if left:
        raise Mismatch(
            f"{len(changed)} of {len(changed) + len(left)} were replaced, and not {listed(left)}", where=left[0]
        )
    nested = replaced(pair, case, wrap=_Around)
    wanted = [f"inner.{name}" if name else "inner" for name in changed]
    changed_inside = nested.before.changed(nested.after)
    left = [
        name
        for name in wanted
        if not any(name == other or name.startswith(f"{other}.") for other in changed_inside if other)
    ]
    if left:
        raise Mismatch(f"inside of another module, not replaced: {listed(left)}", where=left[0])
    return nested.compare_all()


class _Around(nn.Module):
    """A module around a model, such as a trainer's wrapper."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.config = getattr(inner, "config", None)

    def forward(self, idx: Tensor, targets: Tensor) -> Any:
        outputs = self.inner(idx, targets)
        return outputs[:2] if isinstance(outputs, tuple | list) else outputs


def blocks(pair: Pair, case: Case) -> CaseResult:
    """A block with another head count than the config's keeps it."""
    case = case.but(attn_pdrop=0.0, resid_pdrop=0.0)
    config = vars(case.config())
    heads = next((n for n in (2, 3, 1) if n != case.n_head and case.n_embd % n == 0), case.n_head)
    rebuilt = pair.rebuilt(partial(with_field, config, "n_head", heads))
    exchanged: list[str] = []

    def exchange(model: nn.Module) -> None:
        other = rebuilt.build_reference(case)
        exchanged.clear()
        for path, module in list(model.named_modules()):
            if isinstance(module, nn.ModuleList) and len(module) > 1:
                module[1] = other.get_submodule(f"{path}.1")
                exchanged.append(f"{path}.1")

    replacement = replaced(pair, case, exchange)
    if not exchanged:
        return CaseResult(
            notes=("the original has no list of blocks, of which one could be another",), judged=False, applies=False
        )
    after = replacement.after.modules
    for name, module in replacement.problem.make_reference().named_modules():
        reference_numbers, candidate_numbers = _numbers(module), _numbers(after.get(name, module))
        off = [key for key, value in reference_numbers.items() if candidate_numbers.get(key, value) != value]
        if off and name.startswith(tuple(exchanged)):
            raise Mismatch(
                f"{name}.{off[0]} is {candidate_numbers[off[0]]} after replacing, "
                f"and {reference_numbers[off[0]]} before",
                where=name,
            )
    with within(f"with n_head={heads} in the second block", plain=True):
        return replacement.compare_all()


def _numbers(module: nn.Module) -> dict[str, float]:
    return {
        key: v
        for key, v in vars(module).items()
        if isinstance(v, int | float) and not isinstance(v, bool) and key[0] != "_"
    }


def twice(pair: Pair, case: Case) -> CaseResult:
    """Replacing again changes nothing."""
    replacement = replaced(pair, case)
    after_first = replacement.after
    repeated = replaced(pair, case)  # a new model: an exception of the first replacement is not part of this check
    try:
        # a candidate that draws weights draws the same ones in every run
        with exits_as_errors(), seeded(case.seed + 1, pair.device), foreign(CANDIDATE):
            second = pair.candidate(repeated.model)
    except Exception as error:
        ensure_foreign(error)
        raise Mismatch(
            f"replacing again raises {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from error
    if second is not repeated.model and isinstance(repeated.returned, nn.Module):
        raise Mismatch("replacing again returns another object", where="the model")
    after = ModelSnapshot.of(repeated.model)
    off = [name for name, kind in after_first.kinds.items() if after.kinds.get(name) is not kind]
    if off or list(after.values) != list(after_first.values):
        raise Mismatch(f"replacing again replaces once more: {listed(off)}", where=off[0] if off else "")
    repeated.returned = repeated.model
    return repeated.compare_all()


def others(pair: Pair, case: Case) -> CaseResult:
    """Every module that is not replaced stays the same object, of the same class, with its hooks."""

    def hook(model: nn.Module) -> None:
        for module in model.modules():
            module.register_forward_hook(lambda *_: None)

    replacement = replaced(pair, case, hook)
    before, after = replacement.before, replacement.after
    missing = [name for name in before.modules if name not in after.modules]
    if missing:
        raise Mismatch(f"submodules are gone after replacing: {listed(missing)}", where=missing[0])
    changed = before.changed(after)
    # an object of the same class and with the same forward replaces nothing
    lone = [n for n in changed if after.kinds[n] is before.kinds[n] and after.forwards[n] is before.forwards[n]]
    if lone:
        raise Mismatch(f"other objects of the same class after replacing: {listed(lone)}", where=lone[0])
    inside = tuple(f"{name}." for name in changed)
    off = [
        name
        for name, module in before.modules.items()
        if name not in changed and not name.startswith(inside) and after.hooks[name] != before.hooks[name]
    ]
    if off:
        raise Mismatch(f"hooks are gone from modules that were not replaced: {listed(off)}", where=off[0])
    return CaseResult()


def process(pair: Pair, case: Case) -> CaseResult:
    """Only the model is changed, and no class, function, generator or default; a new model is still the original."""
    defaults = torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_default_device()
    replacement = replaced(pair, case)
    if replacement.patched:
        raise Mismatch(f"changed for everybody: {listed(replacement.patched)}", where=replacement.patched[0])
    if replacement.drawn:
        raise Mismatch(
            "the generator was drawn from: what comes after the replacement is another run", where="generator"
        )
    if defaults != (torch.get_default_dtype(), torch.is_grad_enabled(), torch.get_default_device()):
        raise Mismatch("a default of torch was changed", where="defaults")
    fresh = ModelSnapshot.of(replacement.problem.make_reference())
    off = [name for name, kind in replacement.before.kinds.items() if fresh.kinds.get(name) is not kind]
    if off:
        raise Mismatch(f"a new model is built with another class: {listed(off)}", where=off[0])
    return CaseResult()


def root(pair: Pair, case: Case) -> CaseResult:
    """An attention that is inside of nothing is replaced, too, or refused loudly, and not left unchanged in silence."""
    replacement = replaced(pair, case)
    changed = [name for name in replacement.before.changed(replacement.after) if name]
    if not changed:
        return CaseResult(notes=("nothing was replaced, the model is as it was",), judged=False, applies=False)
    alone = replacement.problem.make_reference().get_submodule(changed[0])
    before = ModelSnapshot.of(alone)
    with warnings.catch_warnings(), classes_restored(alone):
        warnings.simplefilter("ignore")
        try:
            with exits_as_errors(), foreign(CANDIDATE):
                result = pair.candidate(alone)
        except Exception as error:
            ensure_foreign(error)
            return CaseResult()  # refused loudly
    description = f"a model that is itself a {before.kinds[''].__name__}"
    if not isinstance(result, nn.Module):
        raise Mismatch(f"{description}: {type(result).__name__} is returned", where=changed[0])
    if not before.changed(ModelSnapshot.of(result)):
        raise Mismatch(f"{description}: nothing was replaced, and nothing was raised", where=changed[0])
    return CaseResult()


CHECKS = tuple(
    Check.of(f"replacement.{run.__name__}", run, REPLACED)
    for run in (returned, layers, blocks, twice, root, others, process)
)
