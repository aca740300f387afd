"""Which faults a run of `verify` plants, and how they are put around the reference of each kind."""

import random
from collections.abc import Callable, Set
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.faults import FAULTS, PLANTS
from equivcheck.faults.backward import rewritten, rewritten_parameter
from equivcheck.subject import Subject

__all__ = ["PlantedFault", "planted"]

_FROM_INSIDE = {
    "quick": 0,
    "gate": 12,
    "thorough": len(FAULTS),
}  # faults of the shipped attention's inside, per profile
_INSIDE = (  # a plant, the check of a whole GPT that should see it there, and the name it has then
    ("quarter-of-the-channels-negated", "logits", "in-a-gpt"),
    ("last-token-two-percent-off", "logits", "in-a-gpt"),
    ("first-weight-gradient-halved", "logits", "in-a-gpt"),
    ("first-weight-gradient-halved", "training", "in-training"),
    ("outputs-negated", "generation", "when-generating"),
)


@dataclass(frozen=True)
class PlantedFault:
    """A pair whose candidate is the reference with one fault, and the checks whose property the fault breaks."""

    name: str
    seen_by: tuple[str, ...]
    subject: Subject


def planted(subject: Subject, checks: Set[str], profile: str, seed: int) -> list[PlantedFault]:
    """The faults for this run: those that one of `checks` should see, from outside and, where it is known, from inside."""
    wrong: list[tuple[str, tuple[str, ...], Callable[..., Any]]]
    if subject.kind == "function":
        wrong = [(name, seen, partial(_around_function, subject.reference, plant)) for name, seen, plant in _FUNCTIONS]
    elif subject.kind in ("model", "replacement"):
        wrong = [(name, seen, partial(_around_model, subject.reference, plant)) for name, seen, plant in _MODELS]
    else:
        wrong = [(p.name, p.seen_by, p.plant(subject.reference)) for p in PLANTS]
        wrong += [(name, seen, partial(_around_module, subject.reference, plant)) for name, seen, plant in _MODULES]
        plants = {p.name: p.plant for p in PLANTS}
        wrong += [(f"{name}-{where}", (check,), plants[name](subject.reference)) for name, check, where in _INSIDE]
        if _is_the_shipped_one(subject):
            outside = {name for name, _, _ in wrong}  # some go wrong in the same way, and have the same name
            inside = [f for f in FAULTS if f.seen_by[0] in checks and f.name not in outside]
            random.Random(seed).shuffle(inside)
            wrong += [(f.name, f.seen_by, f.attention) for f in inside[: _FROM_INSIDE[profile]]]
    found = [
        PlantedFault(name, seen, subject.with_candidate(factory, name))
        for name, seen, factory in wrong
        if seen[0] in checks
    ]
    random.Random(seed).shuffle(found)
    return found


def _is_the_shipped_one(subject: Subject) -> bool:
    from equivcheck.attention import CausalSelfAttention

    return subject.reference is CausalSelfAttention


# --- any module: its contract ------------------------------------------------------------------------------------------


def _around_module(factory: Callable[..., Any], plant: Callable[[nn.Module], nn.Module], config: Any) -> nn.Module:
    return plant(factory(config))


def parameter_renamed(module: nn.Module) -> nn.Module:
    """The first parameter is kept under another name, so that checkpoints do not load."""
    path, _, name = next(n for n, _ in module.named_parameters()).rpartition(".")
    owner = module.get_submodule(path)
    owner._parameters[f"{name}_renamed"] = owner._parameters[name]
    return module


def submodule_not_called(module: nn.Module) -> nn.Module:
    """The first submodule with parameters is run without its hooks."""
    for child in module.modules():
        if child is not module and any(True for _ in child.parameters(recurse=False)):
            child.register_forward_hook = lambda *_, **__: _NoHandle()  # type: ignore[method-assign,assignment]
            break
    return module


class _NoHandle:
    def remove(self) -> None:
        pass


def late_tokens_off(module: nn.Module) -> nn.Module:
    """From the 1025th token on outputs are 1 % off: only long sequences show it."""
    forward = module.forward

    def planted_forward(x: Tensor) -> Tensor:
        y: Tensor = forward(x)
        late = torch.arange(y.size(1), device=y.device).unsqueeze(-1) >= 1024  # (T, 1)
        return torch.where(late, y * 1.01, y)

    module.forward = planted_forward
    return module


_MODULES = (
    ("tokens-past-1024-off", ("long",), late_tokens_off),
    ("parameter-renamed", ("checkpoint",), parameter_renamed),
    ("submodule-not-called", ("interface",), submodule_not_called),
)


# --- functions of q, k, v ----------------------------------------------------------------------------------------------

Function = Callable[..., Tensor]


def _around_function(function: Function, plant: Callable[..., Tensor], *tensors: Tensor, **options: Any) -> Tensor:
    return plant(function, *tensors, **options)


def _output(change: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def planted_function(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        return change(f(q, k, v, **options))

    return planted_function


def _last_off(y: Tensor) -> Tensor:
    last = torch.arange(y.size(-2), device=y.device).unsqueeze(-1) == y.size(-2) - 1
    return torch.where(last, y * 1.02, y)


def _late_off(y: Tensor) -> Tensor:
    late = torch.arange(y.size(-2), device=y.device).unsqueeze(-1) >= 64
    return torch.where(late, y * 1.05, y)


def _past_1024_off(y: Tensor) -> Tensor:
    late = torch.arange(y.size(-2), device=y.device).unsqueeze(-1) >= 1024
    return torch.where(late, y * 1.01, y)


def _half_off(y: Tensor) -> Tensor:
    return y * (1.1 if torch.finfo(y.dtype).bits == 16 else 1.0)


def _toward_zero(y: Tensor) -> Tensor:
    if torch.finfo(y.dtype).bits != 16:
        return y
    bits = y.detach().contiguous().view(torch.int16)
    return y + (torch.where(y.detach() == 0, bits, bits - 1).view(y.dtype) - y.detach())


def _swapped(y: Tensor) -> Tensor:
    return torch.cat((y[..., :-2, :], y[..., -2:, :].flip(-2)), dim=-2)


def _leak(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return f(q, k, v, **options) + 0.01 * F.pad(v[..., 1:, :], (0, 0, 0, 1))


def _gradient(which: int, factor: float) -> Callable[..., Tensor]:
    def planted_function(f: Function, *qkv: Tensor, **options: Any) -> Tensor:
        parts = list(qkv)
        parts[which] = rewritten(parts[which], lambda g: g * factor)
        return f(*parts, **options)

    return planted_function


def _scale_ignored(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return f(q, k, v, **(options | {"scale": q.size(-1) ** -0.5}))


def _dropout_ignored(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return f(q, k, v, **(options | {"dropout_p": 0.0}))


def _dropout_left_on(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return f(q, k, v, **(options | {"dropout_p": max(0.1, options["dropout_p"])}))


def _first_head(y: Tensor) -> Tensor:
    return y[:, :1].expand_as(y).clone()


def _in_place(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    y = f(q, k, v, **options)
    q.data.mul_(1.01)
    return y


def _generator_drawn(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    torch.rand((), device=q.device)
    return f(q, k, v, **options)


def _mask_of_the_batch_shared(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    if options["dropout_p"] == 0:
        return f(q, k, v, **options)
    return f(q[:1], k[:1], v[:1], **options).expand_as(q).clone() + f(q, k, v, **(options | {"dropout_p": 0.0})) * 0


def _positional_names(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    raise TypeError("planted: this function cannot be called by the names of the contract")


_FUNCTIONS = (
    ("outputs-scaled-by-one-in-65536", ("output",), _output(lambda y: y * (1 + 2.0**-16))),
    ("outputs-through-float32", ("output",), _output(lambda y: y.float().to(y.dtype))),
    ("half-precision-wrong", ("output",), _output(_half_off)),
    ("one-unit-toward-zero", ("bias",), _output(_toward_zero)),
    ("last-token-two-percent-off", ("output",), _output(_last_off)),
    ("tokens-past-64-off", ("output",), _output(_late_off)),
    ("tokens-past-1024-off", ("long",), _output(_past_1024_off)),
    ("last-two-tokens-swapped", ("output", "causality"), _output(_swapped)),
    ("first-head-for-all", ("output",), _output(_first_head)),
    ("leak-from-the-next-token", ("causality", "output"), _leak),
    ("gradient-of-q-one-percent-off", ("gradients",), _gradient(0, 1.01)),
    ("gradient-of-k-lost", ("gradients",), _gradient(1, 0.0)),
    ("gradient-of-v-halved", ("gradients",), _gradient(2, 0.5)),
    ("scale-ignored", ("output", "gradients"), _scale_ignored),
    ("dropout-ignored", ("dropout",), _dropout_ignored),
    ("dropout-left-on", ("output", "purity"), _dropout_left_on),
    ("mask-shared-over-the-batch", ("dropout",), _mask_of_the_batch_shared),
    ("input-modified-in-place", ("purity",), _in_place),
    ("generator-drawn-from", ("purity",), _generator_drawn),
    ("call-refused", ("interface", "output"), _positional_names),
)


# --- models ------------------------------------------------------------------------------------------------------------


def _around_model(factory: Callable[..., Any], plant: Callable[..., Any], config: Any) -> nn.Module:
    module: nn.Module = factory(config)
    forward = module.forward
    contract = {"parameter_renamed", "submodule_not_called"}
    if getattr(plant, "__name__", "") in contract:
        return plant(module)  # type: ignore[no-any-return]  # a plant of the contract takes and returns a module

    def planted_forward(idx: Tensor, *rest: Any, **options: Any) -> Any:
        return plant(module, forward, idx, *rest, **options)

    module.forward = planted_forward
    return module


def _logits(change: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    def planted_model(module: nn.Module, forward: Callable[..., Any], *given: Any, **options: Any) -> Any:
        found = forward(*given, **options)
        return (change(found[0]), *found[1:]) if isinstance(found, tuple | list) else change(found)

    return planted_model


def _first_for_all(y: Tensor) -> Tensor:
    return y[:1].expand_as(y).clone()


def _past_16_off(y: Tensor) -> Tensor:
    late = torch.arange(y.size(-2), device=y.device).unsqueeze(-1) >= 16
    return torch.where(late, y * 1.05, y)


def _parameter(which: int, factor: float) -> Callable[..., Any]:
    def planted_model(module: nn.Module, forward: Callable[..., Any], *given: Any, **options: Any) -> Any:
        matrices = [name for name, parameter in module.named_parameters() if parameter.dim() > 1]
        path, _, name = matrices[which].rpartition(".")
        with rewritten_parameter(module.get_submodule(path), name, lambda g: g * factor):
            return forward(*given, **options)

    return planted_model


def _next_token(module: nn.Module, forward: Callable[..., Any], idx: Tensor, *rest: Any, **options: Any) -> Any:
    moved = F.pad(idx[:, 1:], (0, 1)).unsqueeze(-1)
    return _logits(lambda y: y + 0.01 * moved.to(y.dtype))(module, forward, idx, *rest, **options)


def _mode(mode: bool) -> Callable[..., Any]:
    def planted_model(module: nn.Module, forward: Callable[..., Any], *given: Any, **options: Any) -> Any:
        modes = {m: m.training for m in module.modules()}
        module.train(mode)
        try:
            return forward(*given, **options)
        finally:
            for m, training in modes.items():
                m.training = training

    return planted_model


def _drawing(module: nn.Module, forward: Callable[..., Any], idx: Tensor, *rest: Any, **options: Any) -> Any:
    torch.rand((), device=idx.device)
    return forward(idx, *rest, **options)


def _swallowing(module: nn.Module, forward: Callable[..., Any], idx: Tensor, *rest: Any, **options: Any) -> Any:
    try:
        return forward(idx, *rest, **options)
    except (RuntimeError, ValueError, IndexError):
        return torch.zeros(*idx.shape, 2), torch.zeros(())


_MODELS = (
    ("logits-scaled-by-one-in-65536", ("logits",), _logits(lambda y: y * (1 + 2.0**-16))),
    ("logits-through-float32", ("logits",), _logits(lambda y: y.float().to(y.dtype))),
    ("half-precision-wrong", ("logits",), _logits(_half_off)),
    ("last-token-two-percent-off", ("logits",), _logits(_last_off)),
    ("tokens-past-16-off", ("logits",), _logits(_past_16_off)),
    ("last-two-tokens-swapped", ("logits", "causality"), _logits(_swapped)),
    ("first-sample-for-all", ("logits",), _logits(_first_for_all)),
    ("leak-from-the-next-token", ("causality", "logits"), _next_token),
    ("first-weight-gradient-halved", ("logits",), _parameter(0, 0.5)),
    ("last-weight-gradient-lost", ("logits",), _parameter(-1, 0.0)),
    ("second-weight-gradient-one-percent-off", ("logits",), _parameter(1, 1.01)),
    ("logits-negated-when-generating", ("generation",), _logits(lambda y: -y)),
    ("first-weight-gradient-halved-in-training", ("training",), _parameter(0, 0.5)),
    ("training-mode-ignored", ("dropout", "modes"), _mode(False)),
    ("eval-mode-ignored", ("modes", "purity"), _mode(True)),
    ("generator-drawn-from", ("purity",), _drawing),
    ("refusals-swallowed", ("errors",), _swallowing),
    ("parameter-renamed", ("checkpoint",), parameter_renamed),
    ("submodule-not-called", ("interface",), submodule_not_called),
)
