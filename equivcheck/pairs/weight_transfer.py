"""How weights go over where names differ, and how gradients come back: by one function of a state_dict and its adjoint."""

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
_KEY = "_equivcheck_carried"  # of a candidate's __dict__: copies of the module have it too


@dataclass(frozen=True)
class Transfer:
    """A user's `transfer=`, or one that was found; `prefixes` where it is for the attentions inside of a model.

    `told` says in words how weights go over; empty where the user said it. `declared` tells that names are meant to differ.
    """

    function: Callable[..., Any]
    told: str = ""
    prefixes: tuple[str, ...] = ("",)
    declared: bool = False

    def __call__(self, state: Mapping[str, Tensor], config: Any) -> State:
        """The candidate's state in terms of the reference's."""
        made: State = {
            name: value for name, value in state.items() if not any(name.startswith(p) for p in self.prefixes)
        }
        for prefix in self.prefixes:
            inner = {name[len(prefix) :]: value for name, value in state.items() if name.startswith(prefix)}
            if not inner:  # a model of fewer layers
                continue
            given = (inner, config) if _takes_config(self.function) else (inner,)
            found = self.function(*given)
            if not isinstance(found, Mapping):
                raise UsageError(
                    f"transfer= returned {type(found).__name__} instead of a state_dict: {HOW_TO_TRANSFER}"
                )
            made |= {f"{prefix}{name}": value for name, value in found.items()}
        return made

    def inside(self, prefixes: tuple[str, ...]) -> "Transfer":
        """The same for the attentions at these places of a model that is otherwise the same."""
        return replace(self, prefixes=prefixes)


def _takes_config(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return len([p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]) > 1


@dataclass(frozen=True)
class _Carried:
    """What a candidate's gradients are brought back by."""

    transfer: Transfer
    config: Any
    shapes: Mapping[str, torch.Size]  # of the reference's parameters
    rest: Mapping[str, torch.Size]  # of what else is in its state

    def back(self, values: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
        """Values of the candidate's parameters under the reference's names: the adjoint of the transfer."""
        given = {name: value for name, value in values.items() if value is not None}
        if not given:
            return dict.fromkeys(self.shapes)
        like = next(iter(given.values()))
        leaves = {name: torch.zeros(shape, dtype=like.dtype, device=like.device) for name, shape in self.shapes.items()}
        state = {name: leaf.requires_grad_() for name, leaf in leaves.items()}
        state |= {name: torch.zeros(shape, dtype=like.dtype, device=like.device) for name, shape in self.rest.items()}
        with torch.enable_grad():
            made = self.transfer(state, self.config)
            roots = [(made[name], value) for name, value in given.items() if name in made and made[name].requires_grad]
            found = torch.autograd.grad(
                [root for root, _ in roots], list(leaves.values()), [value for _, value in roots], allow_unused=True
            )
        return dict(zip(leaves, found, strict=True))

    def over(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Values of the reference's parameters under the candidate's names: the transfer, which is linear in them."""
        like = next(iter(values.values()))
        rest = {name: torch.zeros(shape, dtype=like.dtype, device=like.device) for name, shape in self.rest.items()}
        return {name: value.detach() for name, value in self.transfer({**values, **rest}, self.config).items()}

    def parts(self, names: Collection[str]) -> set[str]:
        """The candidate's parameters that hold a part of these of the reference's."""
        leaves = {name: torch.zeros(shape).requires_grad_() for name, shape in self.shapes.items()}
        with torch.enable_grad():
            made = self.transfer({**leaves, **{n: torch.zeros(shape) for n, shape in self.rest.items()}}, self.config)
            wanted = [leaves[name] for name in names]
            return {
                name
                for name, value in made.items()
                if wanted and value.requires_grad
                for found in [torch.autograd.grad(value.sum(), wanted, retain_graph=True, allow_unused=True)]
                if any(gradient is not None for gradient in found)
            }


@dataclass(frozen=True)
class Weights:
    """What a module's `state_dict` gives before anything has run the module, and which of it are parameters."""

    state: dict[str, Any]  # with what torch writes beside it, such as versions of its modules
    shapes: Mapping[str, torch.Size]  # of the parameters

    @classmethod
    def of(cls, module: nn.Module) -> "Weights":
        """Those of a module, in the memory that it has them in."""
        return cls(module.state_dict(), {name: p.shape for name, p in module.named_parameters()})

    @property
    def size_bytes(self) -> int:
        """What they take."""
        return sum(value.nbytes for value in self.state.values())

    @property
    def plain(self) -> bool:
        """Whether they are tensors that a copy is the whole of."""
        return all(
            type(value) is Tensor and value.layout == torch.strided and not value.is_quantized
            for value in self.state.values()
        )

    def copied(self) -> "Weights":
        """The same in memory of its own, for who may write to it."""
        state = copy.copy(self.state)
        state.update((name, value.clone()) for name, value in self.state.items())
        return Weights(state, self.shapes)


def carry_over(transfer: Transfer | None, weights: Weights, candidate: nn.Module, config: Any) -> None:
    """Give the candidate the reference's weights; raises what loading raises.

    Buffers that the reference has no counterpart of stay the candidate's own.
    """
    state, shapes = weights.state, weights.shapes
    if transfer is None:
        candidate.load_state_dict(state, strict=True)
        return
    made = {name: value.detach() for name, value in transfer(state, config).items()}
    own = candidate.state_dict()
    buffers = {name for name, _ in candidate.named_buffers()}
    its_alone = {n for n in state if n not in shapes and n not in own}
    made = {name: value for name, value in made.items() if name not in its_alone}
    for name in buffers & set(own):
        carried = made.get(name, state.get(name))
        made[name] = carried if carried is not None and carried.shape == own[name].shape else own[name]
    candidate.load_state_dict(made, strict=True)
    rest = {name: value.shape for name, value in state.items() if name not in shapes}
    vars(candidate)[_KEY] = _Carried(transfer, config, shapes, rest)


def named_back(module: nn.Module, values: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
    """Values by the names of a module's parameters, by those of the reference's where its weights came over by a transfer."""
    carried: _Carried | None = vars(module).get(_KEY)
    return dict(values) if carried is None else carried.back(values)


def named_over(module: nn.Module, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Values by the names of the reference's parameters, by those of the module's own."""
    carried: _Carried | None = vars(module).get(_KEY)
    return dict(values) if carried is None or not values else carried.over(values)


def names_holding(module: nn.Module, names: Collection[str]) -> set[str]:
    """The parameters of a module that hold what the reference has under these names."""
    carried: _Carried | None = vars(module).get(_KEY)
    return set(names) if carried is None else carried.parts(names)


def original_shapes(module: nn.Module) -> dict[str, torch.Size]:
    """The shapes of the reference's parameters by their names there; of a module that is its own reference, its own."""
    carried: _Carried | None = vars(module).get(_KEY)
    return {name: p.shape for name, p in module.named_parameters()} if carried is None else dict(carried.shapes)


def gradients_of(module: nn.Module) -> dict[str, Tensor | None]:
    """The gradients of the parameters that are trained, under the reference's names."""
    return named_back(module, {name: p.grad for name, p in module.named_parameters() if p.requires_grad})
