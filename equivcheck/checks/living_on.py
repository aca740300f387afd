"""What a caller has built, chosen and attached before a replacement lives on after it, property by property."""

from collections import Counter
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.cases import Case
from equivcheck.checks.following import adapted, parts
from equivcheck.checks.holding import Held, Pair
from equivcheck.checks.replacing import Scene, alike, listed, replaced
from equivcheck.checks.transformed import together
from equivcheck.comparison import Mismatch
from equivcheck.problem import Problem

__all__ = [
    "adapters", "dtypes", "frozen", "hooks", "masks", "modes", "parameters", "rates", "shared", "ties", "weights",
]  # fmt: skip

_RATES = (0.0, 0.35, 0.6)


def modes(pair: Pair, case: Case) -> Held:
    """Train or eval stays as it was in every submodule."""
    scene = replaced(pair, case, lambda model: model.eval(), rate=0.5)
    _same_modes(scene)

    def toggle(model: nn.Module) -> None:
        for number, module in enumerate(model.modules()):
            module.training = number % 3 == 0

    _same_modes(replaced(pair, case, toggle))
    return scene.hold()


def _same_modes(scene: Scene) -> None:
    after = scene.after.modes
    off = [name for name, mode in scene.before.modes.items() if after.get(name, mode) != mode]
    if off:
        raise Mismatch(
            f"training={after[off[0]]} after replacing, and {not after[off[0]]} before: {listed(off)}", where=off[0]
        )


def dtypes(pair: Pair, case: Case) -> Held:
    """Parameters and buffers keep their dtypes and devices, in bfloat16 and in float64, and results are computed in them."""
    helds = []
    for dtype in ("bfloat16", "float64"):
        scene = replaced(pair, case.but(dtype=dtype))
        _same_dtypes(scene)
        helds.append(scene.hold())

    def mixed(model: nn.Module) -> None:
        for number, parameter in enumerate(model.parameters()):
            parameter.data = parameter.data.to(torch.float64 if number % 2 else torch.float32)

    _same_dtypes(replaced(pair, case, mixed))
    return together(helds)


def _same_dtypes(scene: Scene) -> None:
    after = scene.after.dtypes
    off = [name for name, kind in scene.before.dtypes.items() if after.get(name, kind) != kind]
    if off:
        its, mine = scene.before.dtypes[off[0]], after[off[0]]
        told = f"{mine[0]} on {mine[1]} after replacing, and {its[0]} on {its[1]} before: {listed(off)}"
        raise Mismatch(told, where=off[0])


def frozen(pair: Pair, case: Case) -> Held:
    """What was frozen stays frozen, and what was trainable stays trainable."""

    def freeze(model: nn.Module) -> None:
        for number, parameter in enumerate(model.parameters()):
            parameter.requires_grad_(number % 2 == 0)

    scene = replaced(pair, case, freeze)
    after = scene.after.requires_grad
    off = [name for name, wanted in scene.before.requires_grad.items() if after.get(name, wanted) != wanted]
    if off:
        raise Mismatch(f"requires_grad={after[off[0]]} after replacing, and not before: {listed(off)}", where=off[0])
    return scene.hold()


def hooks(pair: Pair, case: Case) -> Held:
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

    scene = replaced(pair, case, hook)
    mine = counts[-1]
    original = scene.problem.make_reference()
    its = counts[-1]
    _run(scene.problem, original)
    _run(scene.problem, scene.model)
    off = [name for name, count in its.items() if mine[name] != count]
    if off:
        raise Mismatch(f"hooks fire {mine[off[0]]} times in a forward pass, and {its[off[0]]} before: {listed(off)}", where=off[0])
    held = scene.hold()
    for handle in handles:
        handle.remove()
    mine.clear()
    _run(scene.problem, scene.model)
    if mine:
        raise Mismatch(f"hooks fire after their handles were removed: {listed(list(mine))}", where=next(iter(mine)))
    return held


def _fired(seen: Counter[str], name: str, _module: nn.Module, _args: Any, out: Any) -> Any:
    seen[name] += 1
    return out * 1.25 if isinstance(out, Tensor) else out


def _entered(seen: Counter[str], name: str, _module: nn.Module, _args: Any) -> None:
    seen[f"{name} (before)"] += 1


def _run(problem: Problem, model: nn.Module) -> None:
    problem.run(model, problem.inputs, gradients=False)


def adapters(pair: Pair, case: Case) -> Held:
    """Adapters that were put in the place of linears before the replacement work on after it."""
    problem = pair.problem(case)

    def adapt(model: nn.Module) -> None:
        for name in parts(model):
            if isinstance(model.get_submodule(name), nn.Linear):
                adapted(problem, model, name)

    return replaced(pair, case, adapt).hold()


def ties(pair: Pair, case: Case) -> Held:
    """Parameters that are one object under two names stay one."""

    def tie(model: nn.Module) -> None:
        named = dict(model.named_parameters())
        for first, *others in alike(list(named)):
            for other in others:
                path, _, name = other.rpartition(".")
                if named[other].shape == named[first].shape and name == "weight":
                    setattr(model.get_submodule(path), name, named[first])

    scene = replaced(pair, case, tie)
    after = scene.after.parameters
    by_object: dict[int, list[str]] = {}
    for name, parameter in scene.before.parameters.items():
        by_object.setdefault(id(parameter), []).append(name)
    for names in by_object.values():
        if len({id(after[name]) for name in names if name in after}) > 1:
            raise Mismatch(f"one Parameter before, and several after replacing: {listed(names)}", where=names[0])
    return scene.hold()


def shared(pair: Pair, case: Case) -> Held:
    """A module that two blocks use stays one module."""

    def share(model: nn.Module) -> None:
        modules = dict(model.named_modules())
        for first, *others in alike(list(modules)):
            for other in others:
                path, _, name = other.rpartition(".")
                if path.rpartition(".")[2].isdigit():  # the parts of a block, the attention among them
                    setattr(model.get_submodule(path), name, modules[first])

    scene = replaced(pair, case, share)
    after = scene.after.modules
    by_object: dict[int, list[str]] = {}
    for name, module in scene.before.modules.items():
        by_object.setdefault(id(module), []).append(name)
    for names in by_object.values():
        if len({id(after[name]) for name in names if name in after}) > 1:
            raise Mismatch(f"one module before, and several after replacing: {listed(names)}", where=names[0])
    return scene.hold()


def parameters(pair: Pair, case: Case) -> Held:
    """Every Parameter is the very object that it was: an optimizer that was built before trains the model."""
    scene = replaced(pair, case)
    after = scene.after.parameters
    off = [name for name, parameter in scene.before.parameters.items() if after.get(name) is not parameter]
    if off:
        raise Mismatch(
            f"{len(off)} of {len(scene.before.parameters)} Parameters are other objects than before, "
            f"and in no optimizer that was built before: {listed(off)}",
            where=off[0],
        )
    return Held()


def weights(pair: Pair, case: Case) -> Held:
    """Parameters and buffers hold the values that they held, to the last bit."""
    scene = replaced(pair, case)
    after = scene.after.values
    missing = [name for name in scene.before.values if name not in after]
    if missing:
        raise Mismatch(f"gone after replacing: {listed(missing)}", where=missing[0])
    off = [name for name, value in scene.before.values.items() if not torch.equal(value, after[name])]
    if off:
        raise Mismatch(f"other values after replacing than before: {listed(off)}", where=off[0])
    return Held()


def rates(pair: Pair, case: Case) -> Held:
    """Dropout rates that were changed before the replacement stay changed, and are obeyed."""

    def change(model: nn.Module) -> None:
        for number, drop in enumerate(m for m in model.modules() if isinstance(m, nn.Dropout)):
            drop.p = _RATES[number % len(_RATES)]

    scene = replaced(pair, case, change, rate=0.5)
    after = scene.after.rates
    off = [name for name, rate in scene.before.rates.items() if after.get(name, rate) != rate]
    if off:
        raise Mismatch(f"p={after[off[0]]} after replacing, and {scene.before.rates[off[0]]} before: {listed(off)}", where=off[0])

    def none(model: nn.Module) -> None:
        for drop in model.modules():
            if isinstance(drop, nn.Dropout):
                drop.p = 0.0

    try:
        return replaced(pair, case.but(training=True), none, rate=0.5).hold()
    except Mismatch as error:
        raise Mismatch(f"in train mode, with every p = 0: {error}", ratio=error.ratio, where=error.where) from None


def masks(pair: Pair, case: Case) -> Held:
    """A mask that was edited before the replacement is kept, and obeyed."""
    edited: list[str] = []

    def edit(model: nn.Module) -> None:
        for name, buffer in model.named_buffers():
            square = buffer.dim() >= 2 and buffer.shape[-1] == buffer.shape[-2]
            if square and bool(((buffer == 0) | (buffer == 1)).all()):
                width = max(2, (case.seq_len + 1) // 2)
                buffer[..., :width, :width] = 1  # a prefix that sees all of itself
                edited.append(name)

    scene = replaced(pair, case, edit)
    if not edited:
        return Held(notes=("the original has no buffer that is a mask of zeros and ones",), judged=False)
    after = scene.after.values
    off = [n for n, value in scene.before.values.items() if n in edited and not torch.equal(value, after.get(n, value[:0]))]
    if off:
        raise Mismatch(f"the edited mask is another after replacing: {listed(off)}", where=off[0])
    try:
        return scene.hold()
    except Mismatch as error:
        raise Mismatch(f"with a mask that lets a prefix see all of itself: {error}", ratio=error.ratio, where=error.where) from None
