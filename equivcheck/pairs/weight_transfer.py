"""The transfer of weights to a candidate with other names, and of gradients back: a function and its adjoint."""

import copy
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.errors import UsageError

__all__ = [
    "HOW_TO_TRANSFER",
    "Transfer",
    "Weights",
    "carry_over",
    "gradients_of",
    "named_back",
    "named_over",
    "names_holding",
    "original_shapes",
]

HOW_TO_TRANSFER = "pass transfer=, a function that makes of the reference's state_dict the candidate's"

State = dict[str, Tensor]
_KEY = "_equivcheck_carried"  # in a candidate's __dict__, so that copies of the module have it too


@dataclass(frozen=True)
class Transfer:
    """A transfer of weights, given by a user or found by equivcheck.

    Attributes:
        function: Turns the reference's state_dict, and the config if it takes one, into the candidate's.
        description: The transfer in words; empty if the user gave it.
        prefixes: The prefixes of the attentions in a model to which the function applies.
        declared: Whether the user declared that names differ.
    """

    function: Callable[..., Any]
    description: str = ""
    prefixes: tuple[str, ...] = ("",)
    declared: bool = False

    def __call__(self, state: Mapping[str, Tensor], config: Any) -> State:
        """The candidate's state, made of the reference's."""
        candidate_state: State = {
            name: value for name, value in state.items() if not any(name.startswith(p) for p in self.prefixes)
        }
        for prefix in self.prefixes:
            inner = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
            if not inner:  # a model of fewer layers
                continue
            arguments = (inner, config) if _takes_config(self.function) else (inner,)
            attention_state = self.function(*arguments)
            if not isinstance(attention_state, Mapping):
                raise UsageError(
                    f"transfer= returned {type(attention_state).__name__} instead of a state_dict: {HOW_TO_TRANSFER}"
                )
            candidate_state |= {f"{prefix}{name}": value for name, value in attention_state.items()}
        return candidate_state

    def inside(self, prefixes: tuple[str, ...]) -> "Transfer":
        """The same transfer for the attentions at these prefixes of a model that is otherwise the same."""
        return replace(self, prefixes=prefixes)


def _takes_config(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return len([p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]) > 1


@dataclass(frozen=True)
class _Carried:
    """The transfer of a candidate's weights, with the shapes of the reference's state."""

    transfer: Transfer
    config: Any
    shapes: Mapping[str, torch.Size]  # of the reference's parameters
    rest: Mapping[str, torch.Size]  # of the rest of the reference's state

    def back(self, values: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
        """Values of the candidate's parameters by the reference's names, by the adjoint of the transfer."""
        given = {name: value for name, value in values.items() if value is not None}
        if not given:
            return dict.fromkeys(self.shapes)
        like = next(iter(given.values()))
        leaves = {name: torch.zeros(shape, dtype=like.dtype, device=like.device) for name, shape in self.shapes.items()}
        state = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
        state |= {name: torch.zeros(shape, dtype=like.dtype, device=like.device) for name, shape in self.rest.items()}
        with torch.enable_grad():
            candidate_state = self.transfer(state, self.config)
            roots = [
                (candidate_state[name], value)
                for name, value in given.items()
                if name in candidate_state and candidate_state[name].requires_grad
            ]
            gradients = torch.autograd.grad(
                [root for root, _ in roots], list(leaves.values()), [value for _, value in roots], allow_unused=True
            )
        # parameters that a module was given after the transfer, such as those of an adapter
        later = {name: value for name, value in values.items() if name not in candidate_state}
        return dict(zip(leaves, gradients, strict=True)) | later

    def over(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Values of the reference's parameters by the candidate's names, by the transfer, which is linear in them."""
        like = next(iter(values.values()))
        rest = {name: torch.zeros(shape, dtype=like.dtype, device=like.device) for name, shape in self.rest.items()}
        return {name: value.detach() for name, value in self.transfer({**values, **rest}, self.config).items()}

    def parts(self, names: Collection[str]) -> set[str]:
        """The names of the candidate's parameters that hold a part of these parameters of the reference."""
        leaves = {name: torch.zeros(shape).requires_grad_() for name, shape in self.shapes.items()}
        with torch.enable_grad():
            candidate_state = self.transfer(
                {**leaves, **{n: torch.zeros(shape) for n, shape in self.rest.items()}}, self.config
            )
            wanted = [leaves[name] for name in names]
            return {
                name
                for name, value in candidate_state.items()
                if wanted and value.requires_grad
                for gradients in [torch.autograd.grad(value.sum(), wanted, retain_graph=True, allow_unused=True)]
                if any(gradient is not None for gradient in gradients)
            }


@dataclass(frozen=True)
class Weights:
    """The `state_dict` of a module before its first run, and the shapes of its parameters."""

    state: dict[str, Any]  # with the attributes that torch sets on it, such as versions of modules
    shapes: Mapping[str, torch.Size]  # of the parameters

    @classmethod
    def of(cls, module: nn.Module) -> "Weights":
        """The weights of a module, which share its memory."""
        return cls(module.state_dict(), {name: p.shape for name, p in module.named_parameters()})

    @property
    def size_bytes(self) -> int:
        """The size of the state."""
        return sum(value.nbytes for value in self.state.values())

    @property
    def plain(self) -> bool:
        """Whether all of the state is plain strided tensors, which a copy reproduces in full."""
        return all(
            type(value) is Tensor and value.layout == torch.strided and not value.is_quantized
            for value in self.state.values()
        )

    def copied(self) -> "Weights":
        """A copy that does not share memory, and may be written to."""
        state = copy.copy(self.state)
        state.update((name, value.clone()) for name, value in self.state.items())
        return Weights(state, self.shapes)


def carry_over(transfer: Transfer | None, weights: Weights, candidate: nn.Module, config: Any) -> None:
    """Give the candidate the reference's weights; exceptions of loading propagate.

    Buffers of the candidate without a counterpart in the reference keep their values, and those that the reference
    alone has, such as a mask, are left out: what that means for checkpoints is what the check `checkpoint` looks at.
    """
    state, shapes = weights.state, weights.shapes
    if transfer is None:
        candidate.load_state_dict(_with_buffers_of(candidate, state, shapes), strict=True)
        return
    candidate_state = {name: value.detach() for name, value in transfer(state, config).items()}
    initial_state = candidate.state_dict()
    buffers = {name for name, _ in candidate.named_buffers()}
    reference_only = {n for n in state if n not in shapes and n not in initial_state}
    candidate_state = {name: value for name, value in candidate_state.items() if name not in reference_only}
    for name in buffers & set(initial_state):
        carried = candidate_state.get(name, state.get(name))
        candidate_state[name] = (
            carried if carried is not None and carried.shape == initial_state[name].shape else initial_state[name]
        )
    candidate.load_state_dict(candidate_state, strict=True)
    rest = {name: value.shape for name, value in state.items() if name not in shapes}
    vars(candidate)[_KEY] = _Carried(transfer, config, shapes, rest)


def _with_buffers_of(candidate: nn.Module, state: dict[str, Any], shapes: Mapping[str, torch.Size]) -> dict[str, Any]:
    """The state with the buffers that the candidate has, as far as the two have not the same ones."""
    buffers = {name for name, _ in candidate.named_buffers()}
    initial_state = candidate.state_dict()
    left_out = {name for name in state if name not in shapes and name not in initial_state}
    added = {name for name in initial_state if name not in state and name in buffers}
    if not left_out and not added:
        return state
    changed = copy.copy(state)  # with the attributes that torch sets on it
    for name in left_out:
        del changed[name]
    changed.update((name, initial_state[name]) for name in added)
    return changed


def named_back(module: nn.Module, values: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
    """Values of a module's parameters by the reference's names; unchanged if no transfer was used."""
    carried: _Carried | None = vars(module).get(_KEY)
    return dict(values) if carried is None else carried.back(values)


def named_over(module: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Values of the reference's parameters by the module's names; unchanged if no transfer was used."""
    carried: _Carried | None = vars(module).get(_KEY)
    return dict(values) if carried is None or not values else carried.over(values)


def names_holding(module: nn.Module, names: Collection[str]) -> set[str]:
    """The names of a module's parameters that hold a part of the reference's parameters of these names."""
    carried: _Carried | None = vars(module).get(_KEY)
    return set(names) if carried is None else carried.parts(names)


def original_shapes(module: nn.Module) -> dict[str, torch.Size]:
    """The shapes of the reference's parameters by the reference's names; without a transfer, the module's."""
    carried: _Carried | None = vars(module).get(_KEY)
    return {name: p.shape for name, p in module.named_parameters()} if carried is None else dict(carried.shapes)


def gradients_of(module: nn.Module) -> dict[str, Tensor | None]:
    """The gradients of the parameters that are trained, by the reference's names."""
    return named_back(module, {name: p.grad for name, p in module.named_parameters() if p.requires_grad})
