"""The calls of a model's submodules in one forward pass, seen by hooks, and one such call as a problem of its own."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from equivcheck.pairs.cache import Memory
from equivcheck.pairs.named_outputs import Outputs, guarded
from equivcheck.pairs.problem import Problem, Results
from equivcheck.pairs.reference import Original
from equivcheck.pairs.sides import foreign
from equivcheck.pairs.write_guard import Guard

__all__ = ["ROOT", "Call", "Key", "inner_outputs", "problem_of", "recorded", "same_bits"]

Key = tuple[str, int]
"""A call: the name of the submodule, and how many calls of it came before."""

ROOT: Key = ("", 0)
"""The call of the model itself."""


@dataclass
class Call:
    """One call of a submodule.

    Attributes:
        key: The name of the submodule and the number of the call.
        around: The calls that it is inside of, from the outermost; the first is that of the model.
        given: Its arguments, flat; tensors are copies.
        form: How the arguments become positional ones and keywords.
        trained: The positions of the arguments that need a gradient.
        outputs: Copies of the tensors of floating-point numbers that it returned, by name.
        upstream: The gradients that came back to these, by name; none without a backward pass.
    """

    key: Key
    around: tuple[Key, ...]
    given: list[Any]
    form: TreeSpec
    trained: frozenset[int]
    outputs: dict[str, Tensor] = field(default_factory=dict)
    upstream: dict[str, Tensor] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the submodule."""
        return self.key[0]

    @property
    def tensors(self) -> list[int]:
        """The positions of tensors among the arguments, those of floating-point numbers first."""
        at = [number for number, value in enumerate(self.given) if isinstance(value, Tensor)]
        return sorted(at, key=lambda number: not self.given[number].is_floating_point())

    def outputs_of(self, module: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        """The tensors that a module returns for these arguments, with `inputs` in the places of `tensors`."""
        given = list(self.given)
        for at, x in zip(self.tensors, inputs, strict=True):
            # a copy: a module may write to its input, and a leaf that needs a gradient refuses that
            given[at] = x.clone() if at in self.trained else x.detach().clone()
        args, kwargs = tree_unflatten(given, self.form)
        return _tensors_of(module(*args, **kwargs))


def recorded(module: nn.Module, run: Callable[[], object]) -> list[Call]:
    """The calls of a module and of its submodules in the first forward pass of `run`, in the order in which they begin.

    The module has no hooks of equivcheck afterwards. What a checkpoint runs again in the backward pass is left out.

    Args:
        module: The module.
        run: Calls it, and may send gradients back through what it returns.
    """
    recorder = _Recorder()
    try:
        with foreign():
            recorder.watch(module)
        run()
    finally:
        for handle in recorder.handles:
            handle.remove()
    return [call for call in recorder.calls if call.outputs or call.key == ROOT]


class _Recorder:
    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.handles: list[Any] = []
        self._open: list[Call] = []
        self._counts: Counter[str] = Counter()

    def watch(self, module: nn.Module) -> None:
        """Put a hook before and one behind each call; hooks of the user lie between the two."""
        for name, submodule in module.named_modules():
            enter, leave = partial(self._enter, name), partial(self._leave, name)
            self.handles.append(submodule.register_forward_pre_hook(enter, prepend=True, with_kwargs=True))
            self.handles.append(submodule.register_forward_hook(leave, with_kwargs=True))

    def _enter(self, name: str, module: nn.Module, args: Any, kwargs: Any) -> None:
        if not self._open and (name or self.calls):  # nothing but the first call of the whole
            return
        leaves, form = tree_flatten((args, kwargs))
        trained = frozenset(at for at, x in enumerate(leaves) if isinstance(x, Tensor) and x.requires_grad)
        given = [x.detach().clone() if isinstance(x, Tensor) else x for x in leaves]
        around = tuple(call.key for call in self._open)
        call = Call((name, self._counts[name]), around, given, form, trained)
        self._counts[name] += 1
        self.calls.append(call)
        self._open.append(call)

    def _leave(self, name: str, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        if all(call.name != name for call in self._open):
            return
        while (call := self._open.pop()).name != name:  # an exception ended a call inside, and the model went on
            pass
        for label, value in _tensors_of(output).items():
            call.outputs[label] = value.detach().clone()
            if value.requires_grad:
                value.register_hook(partial(_keep, call.upstream, label))


def _keep(upstream: dict[str, Tensor], label: str, gradient: Tensor) -> None:
    upstream[label] = gradient.detach().clone()


def _tensors_of(output: Any) -> dict[str, Tensor]:
    """The tensors of floating-point numbers in a result, by name."""
    values = [x for x in tree_flatten(output)[0] if isinstance(x, Tensor) and x.is_floating_point()]
    return {f"output {number}" if number else "output": value for number, value in enumerate(values)}


def problem_of(call: Call, model: Problem) -> Problem:
    """The problem of a submodule on the input that this call gave it; what comes back in `call.upstream` flows back.

    Args:
        call: A call of a submodule of the original.
        model: The problem of the whole.
    """
    inputs = tuple(call.given[at] for at in call.tensors)
    steady = {f"input {number}" if number else "input": x for number, x in enumerate(inputs)}
    guard = Guard(steady | {f"upstream {name}": gradient for name, gradient in call.upstream.items()})
    return replace(
        model,
        make_reference=lambda: _original(model).get_submodule(call.name),
        make_candidate=lambda make: model.candidate.get_submodule(call.name),
        inputs=inputs,
        names=tuple(name for name, x in steady.items() if x.is_floating_point()),
        outputs=partial(guarded, call.outputs_of, guard, model.memory.subclasses, tuple(steady)),
        upstream=dict(call.upstream),
        memory=Memory(),
        memory_key=call.key,
        guard=guard,
    )


def _original(model: Problem) -> nn.Module:
    """A new original, and not an oracle of the user, whose submodules may have other names."""
    make = model.make_reference
    return make.build(None) if isinstance(make, Original) else make()


def inner_outputs(problem: Problem, keys: Sequence[Key]) -> Problem:
    """The same problem, whose results are the outputs of these calls inside of its module, without a backward pass.

    Args:
        problem: The problem of a model or of a submodule.
        keys: The calls, with names as that module has them.
    """
    whole: Outputs = problem.outputs

    def outputs(module: nn.Module, inputs: Sequence[Tensor]) -> dict[str, Tensor]:
        calls = {call.key: call for call in recorded(module, lambda: whole(module, inputs))}
        return {
            f"{at}: {label}": value
            for at, key in enumerate(keys)
            if key in calls
            for label, value in calls[key].outputs.items()
        }

    return replace(problem, outputs=outputs, upstream={}, memory=Memory(), memory_key=("inside", problem.memory_key))


def same_bits(one: Results, other: Results) -> bool:
    """Whether two runs have the same names and, in each tensor, the same numbers."""
    return one.keys() == other.keys() and all(_same(value, other[name]) for name, value in one.items())


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    if one is None or other is None:
        return one is other
    alike = (one.shape, one.dtype, one.device) == (other.shape, other.dtype, other.device)
    return alike and torch.equal(one, other)
