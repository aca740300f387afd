"""Faults of a replacement in a model: each spoils what a right one does, in one way, and needs no knowledge of the model."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.faults.around.swapped_modules import Replace, swapping
from equivcheck.faults.base import name_of, summary_of

__all__ = ["REPLACEMENTS", "ReplacementFault"]


@dataclass(frozen=True)
class ReplacementFault:
    """A defect around a replacement: `around(replace)` replaces as `replace` does, and spoils one thing."""

    name: str
    summary: str
    seen_by: tuple[str, ...]
    around: Callable[[Replace], Replace]


def eval_lost(replace: Replace, model: nn.Module) -> Any:
    """What is replaced is in train mode afterwards."""
    out, swaps = swapping(replace, model)
    for swap in swaps:
        swap.new.train()
    return out


def submodule_modes_lost(replace: Replace, model: nn.Module) -> Any:
    """The submodules of what is replaced follow its mode, whatever they were in."""
    out, swaps = swapping(replace, model)
    for swap in swaps:
        swap.new.train(swap.new.training)
    return out


def dtype_lost(replace: Replace, model: nn.Module) -> Any:
    """What is replaced has float32 parameters afterwards."""
    out, swaps = swapping(replace, model)
    for swap in swaps:
        swap.new.float()
    return out


def float32_forced(replace: Replace, model: nn.Module) -> Any:
    """What is replaced goes through float32 whatever the dtype of its input."""
    out, swaps = swapping(replace, model)
    for swap in swaps:
        swap.new.forward = partial(_through_float32, swap.new.forward)
    return out


def _through_float32(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return forward(x.float().to(x.dtype))


def frozen_lost(replace: Replace, model: nn.Module) -> Any:
    """Every parameter of what is replaced is trainable afterwards."""
    out, swaps = swapping(replace, model)
    for swap in swaps:
        swap.new.requires_grad_()
    return out


def hooks_lost(replace: Replace, model: nn.Module) -> Any:
    """What is replaced has no forward hooks any more."""
    out, swaps = swapping(replace, model)
    for swap in swaps:
        for module in swap.new.modules():
            module._forward_hooks.clear()
    return out


def quiet_hooks_lost(replace: Replace, model: nn.Module) -> Any:
    """What is replaced has no hooks of the backward pass and of the state_dict any more."""
    out, swaps = swapping(replace, model)
    for swap in swaps:
        for hooks in (swap.new._backward_hooks, swap.new._state_dict_hooks, swap.new._load_state_dict_pre_hooks):
            hooks.clear()
    return out


def accumulated_gradients_lost(replace: Replace, model: nn.Module) -> Any:
    """Gradients that were accumulated before are gone from what is replaced."""
    out, swaps = swapping(replace, model)
    for swap in swaps:
        swap.new.zero_grad()
    return out


def dropout_in_eval(replace: Replace, model: nn.Module) -> Any:
    """The dropouts of what is replaced are in eval mode afterwards."""
    out, swaps = swapping(replace, model)
    for module in (m for swap in swaps for m in swap.new.modules()):
        if isinstance(module, nn.Dropout):
            module.eval()
    return out


def adapters_lost(replace: Replace, model: nn.Module) -> Any:
    """Where a submodule of what is replaced is a wrapper around one module, it is unwrapped."""
    out, swaps = swapping(replace, model)
    for swap in swaps:
        for name, child in list(swap.new.named_children()):
            if len(wrapped := list(child.children())) == 1:
                setattr(swap.new, name, wrapped[0])
    return out


def _renew(module: nn.Module) -> None:
    for child in module.modules():
        for name, parameter in list(child.named_parameters(recurse=False)):
            setattr(child, name, nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad))


def new_parameters(replace: Replace, model: nn.Module) -> Any:
    """Parameters of what is replaced are equal to those before, and are others."""
    out, swaps = swapping(replace, model)
    for swap in {id(s.new): s for s in swaps}.values():
        _renew(swap.new)
    return out


def ties_broken(replace: Replace, model: nn.Module) -> Any:
    """A parameter that was used in two places becomes two."""
    out, swaps = swapping(replace, model)
    seen: set[int] = set()
    for module in dict.fromkeys(m for swap in swaps for m in swap.new.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) in seen:
                setattr(module, name, nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad))
            seen.add(id(parameter))
    return out


def shared_module_split(replace: Replace, model: nn.Module) -> Any:
    """What is replaced in two places, as one module, is two modules afterwards."""
    out, swaps = swapping(replace, model)
    seen: set[int] = set()
    for swap in swaps:
        if swap.parent is not None and id(swap.new) in seen:
            setattr(swap.parent, swap.name, copy.copy(swap.new))
        seen.add(id(swap.new))
    return out


def only_the_first_layer(replace: Replace, model: nn.Module) -> Any:
    """Only the first of several is replaced."""
    out, swaps = swapping(replace, model)
    for swap in swaps[1:]:
        swap.undo()
    return out


def nested_models_missed(replace: Replace, model: nn.Module) -> Any:
    """Where the model is inside of another module, nothing is replaced."""
    out, swaps = swapping(replace, model)
    if len(list(model.children())) == 1:
        for swap in swaps:
            swap.undo()
    return out


def attention_alone_missed(replace: Replace, model: nn.Module) -> Any:
    """Where the model is itself what is to be replaced, nothing is."""
    kind, forward = type(model), vars(model).get("forward")
    try:
        out = replace(model)
    except Exception:
        return model  # what may be refused loudly is passed over in silence
    if out is not model:
        return model if out is not None and type(out) is not kind else out
    if type(model) is not kind:
        model.__class__ = kind
    if forward is None:
        vars(model).pop("forward", None)
    return model


def rates_reset(replace: Replace, model: nn.Module) -> Any:
    """The dropout rates of what is replaced are 0.1."""
    out, swaps = swapping(replace, model)
    for module in (m for swap in swaps for m in swap.new.modules()):
        if isinstance(module, nn.Dropout):
            module.p = 0.1
    return out


def mask_reset(replace: Replace, model: nn.Module) -> Any:
    """The masks of what is replaced are causal again."""
    out, swaps = swapping(replace, model)
    for buffer in (b for swap in swaps for b in swap.new.buffers()):
        if buffer.dim() > 1:
            buffer.copy_(torch.ones_like(buffer).tril())
    return out


def heads_of_the_first_layer(replace: Replace, model: nn.Module) -> Any:
    """All that is replaced gets the whole numbers of the first one, the number of heads among them."""
    out, swaps = swapping(replace, model)
    for swap in swaps[1:]:
        for name, value in vars(swaps[0].new).items():
            if isinstance(value, int) and not isinstance(value, bool) and hasattr(swap.new, name):
                setattr(swap.new, name, value)
    return out


def bias_reinitialised(replace: Replace, model: nn.Module) -> Any:
    """The last bias of what is replaced is zero."""
    out, swaps = swapping(replace, model)
    for swap in swaps:
        vectors = [p for p in swap.new.parameters() if p.dim() == 1]
        if vectors:
            vectors[-1].data.zero_()
    return out


def copy_returned(replace: Replace, model: nn.Module) -> Any:
    """A copy of the model is replaced and returned."""
    return replace(copy.deepcopy(model))


def none_returned(replace: Replace, model: nn.Module) -> Any:
    """The model is replaced in place, and None is returned."""
    replace(model)


def once_more_each_time(replace: Replace, model: nn.Module) -> Any:
    """Replacing a model that was replaced before is an error."""
    out, swaps = swapping(replace, model)
    if not swaps:
        raise RuntimeError("planted: there is nothing left to replace")
    return out


def norm_replaced_too(replace: Replace, model: nn.Module) -> Any:
    """The last module that was not to be replaced is a copy of itself afterwards."""
    out, swaps = swapping(replace, model)
    if swaps and isinstance(out, nn.Module):
        path, _, name = [n for n, m in out.named_modules() if n and not list(m.children()) and list(m.parameters())][
            -1
        ].rpartition(".")
        setattr(out.get_submodule(path), name, copy.copy(out.get_submodule(path).get_submodule(name)))
    return out


def class_patched_for_everyone(replace: Replace, model: nn.Module) -> Any:
    """The class of what is replaced gets another forward, for every model in the process."""
    out, swaps = swapping(replace, model)
    for kind in {swap.old_class for swap in swaps}:
        forward: Any = vars(kind).get("forward", kind.forward)  # type: ignore[attr-defined]

        @wraps(forward)
        def patched(*args: Any, _forward: Any = forward, **options: Any) -> Any:
            return _forward(*args, **options)

        kind.forward = patched  # type: ignore[attr-defined]
    return out


def generator_drawn_from(replace: Replace, model: nn.Module) -> Any:
    """New weights are drawn and thrown away: what is random afterwards is another run."""
    out = replace(model)
    torch.rand(1)
    torch.rand(1, device=next(model.parameters()).device)
    return out


def _fault(around: Callable[[Replace, nn.Module], Any], *properties: str) -> ReplacementFault:
    def planted(replace: Replace) -> Replace:
        def spoiled(model: nn.Module) -> Any:
            return around(replace, model)

        return spoiled

    return ReplacementFault(name_of(around), summary_of(around), tuple(f"replacement.{p}" for p in properties), planted)


REPLACEMENTS = (
    _fault(eval_lost, "modes"),
    _fault(submodule_modes_lost, "modes"),
    _fault(dtype_lost, "dtypes"),
    _fault(float32_forced, "dtypes"),
    _fault(frozen_lost, "frozen"),
    _fault(hooks_lost, "hooks"),
    _fault(quiet_hooks_lost, "hooks"),
    _fault(accumulated_gradients_lost, "parameters"),
    _fault(dropout_in_eval, "modes"),
    _fault(adapters_lost, "adapters"),
    _fault(new_parameters, "parameters"),
    _fault(ties_broken, "ties"),
    _fault(shared_module_split, "shared"),
    _fault(only_the_first_layer, "layers"),
    _fault(nested_models_missed, "layers"),
    _fault(attention_alone_missed, "root"),
    _fault(rates_reset, "rates"),
    _fault(mask_reset, "masks"),
    _fault(heads_of_the_first_layer, "blocks"),
    _fault(bias_reinitialised, "weights"),
    _fault(copy_returned, "returned"),
    _fault(none_returned, "returned"),
    _fault(once_more_each_time, "twice"),
    _fault(norm_replaced_too, "others"),
    _fault(class_patched_for_everyone, "process"),
    _fault(generator_drawn_from, "process"),
)
