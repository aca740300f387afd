"""Faults of a replacement in a model: each spoils a right replacement in one way, without knowledge of the model."""

import copy
from collections.abc import Callable, Sequence
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.faults.around.swapped_modules import Replace, Swap, all_spoiled, each_spoiled, spoiled, swapping
from equivcheck.faults.base import Fault

__all__ = ["REPLACEMENTS"]


def eval_lost(new: nn.Module) -> None:
    """The replaced module is in train mode afterwards."""
    new.train()


def submodule_modes_lost(new: nn.Module) -> None:
    """The submodules of the replaced module get its mode and lose theirs."""
    new.train(new.training)


def dtype_lost(new: nn.Module) -> None:
    """The replaced module has float32 parameters afterwards."""
    new.float()


def float32_forced(new: nn.Module) -> None:
    """The input of the replaced module is rounded to float32."""
    new.forward = partial(_through_float32, new.forward)


def _through_float32(forward: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return forward(x.float().to(x.dtype))


def frozen_lost(new: nn.Module) -> None:
    """Every parameter of the replaced module is trainable afterwards."""
    new.requires_grad_()


def hooks_lost(new: nn.Module) -> None:
    """The replaced module loses its forward hooks."""
    for module in new.modules():
        module._forward_hooks.clear()


def quiet_hooks_lost(new: nn.Module) -> None:
    """The replaced module loses its hooks of the backward pass and of the state_dict."""
    for hooks in (new._backward_hooks, new._state_dict_hooks, new._load_state_dict_pre_hooks):
        hooks.clear()


def accumulated_gradients_lost(new: nn.Module) -> None:
    """The replaced module loses its accumulated gradients."""
    new.zero_grad()


def dropout_in_eval(new: nn.Module) -> None:
    """The dropouts of the replaced module are in eval mode afterwards."""
    for module in new.modules():
        if isinstance(module, nn.Dropout):
            module.eval()


def adapters_lost(new: nn.Module) -> None:
    """A submodule of the replaced module that wraps one module is unwrapped."""
    for name, child in list(new.named_children()):
        if len(wrapped := list(child.children())) == 1:
            setattr(new, name, wrapped[0])


def rates_reset(new: nn.Module) -> None:
    """The dropout rates of the replaced module are 0.1."""
    for module in new.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.1


def mask_reset(new: nn.Module) -> None:
    """The masks of the replaced module are causal again."""
    for buffer in new.buffers():
        if buffer.dim() > 1:
            buffer.copy_(torch.ones_like(buffer).tril())


def bias_reinitialised(new: nn.Module) -> None:
    """The last bias of the replaced module is zero."""
    vectors = [p for p in new.parameters() if p.dim() == 1]
    if vectors:
        vectors[-1].data.zero_()


def _renew(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
    setattr(module, name, nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad))


def new_parameters(new: nn.Module) -> None:
    """The parameters of the replaced module are new objects with equal values."""
    for module in new.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            _renew(module, name, parameter)


def ties_broken(swaps: Sequence[Swap]) -> None:
    """A parameter that was used in two places becomes two."""
    seen: set[int] = set()
    for module in dict.fromkeys(m for swap in swaps for m in swap.new.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) in seen:
                _renew(module, name, parameter)
            seen.add(id(parameter))


def shared_module_split(swaps: Sequence[Swap]) -> None:
    """One module that is replaced in two places is two modules afterwards."""
    seen: set[int] = set()
    for swap in swaps:
        if swap.parent is not None and id(swap.new) in seen:
            setattr(swap.parent, swap.name, copy.copy(swap.new))
        seen.add(id(swap.new))


def only_the_first_layer(swaps: Sequence[Swap]) -> None:
    """Only the first of several is replaced."""
    for swap in swaps[1:]:
        swap.undo()


def heads_of_the_first_layer(swaps: Sequence[Swap]) -> None:
    """All replaced modules get the integer attributes of the first one, such as the number of heads."""
    for swap in swaps[1:]:
        for name, value in vars(swaps[0].new).items():
            if isinstance(value, int) and not isinstance(value, bool) and hasattr(swap.new, name):
                setattr(swap.new, name, value)


def once_more_each_time(swaps: Sequence[Swap]) -> None:
    """A second replacement of the same model is an error."""
    if not swaps:
        raise RuntimeError("planted: there is nothing left to replace")


def class_patched_for_everyone(swaps: Sequence[Swap]) -> None:
    """The class of the replaced module gets another forward, for every model in the process."""
    for kind in {swap.old_class for swap in swaps}:
        forward: Any = vars(kind).get("forward", kind.forward)  # type: ignore[attr-defined]

        @wraps(forward)
        def patched(*args: Any, _forward: Any = forward, **options: Any) -> Any:
            return _forward(*args, **options)

        kind.forward = patched  # type: ignore[attr-defined]


def nested_models_missed(replace: Replace, model: nn.Module) -> Any:
    """Nothing is replaced if the model is inside of another module."""
    out, swaps = swapping(replace, model)
    if len(list(model.children())) == 1:
        for swap in swaps:
            swap.undo()
    return out


def attention_alone_missed(replace: Replace, model: nn.Module) -> Any:
    """Nothing is replaced if the model itself is the attention."""
    kind, forward = type(model), vars(model).get("forward")
    try:
        out = replace(model)
    except Exception:
        return model  # the refusal is ignored
    if out is not model:
        return model if out is not None and type(out) is not kind else out
    if type(model) is not kind:
        model.__class__ = kind
    if forward is None:
        vars(model).pop("forward", None)
    return model


def copy_returned(replace: Replace, model: nn.Module) -> Any:
    """A copy of the model is replaced and returned."""
    return replace(copy.deepcopy(model))


def none_returned(replace: Replace, model: nn.Module) -> Any:
    """The model is replaced in place, and None is returned."""
    replace(model)


def norm_replaced_too(replace: Replace, model: nn.Module) -> Any:
    """The last module that should stay is a copy of itself afterwards."""
    out, swaps = swapping(replace, model)
    if swaps and isinstance(out, nn.Module):
        leaves = [n for n, m in out.named_modules() if n and not list(m.children()) and list(m.parameters())]
        path, _, name = leaves[-1].rpartition(".")
        setattr(out.get_submodule(path), name, copy.copy(out.get_submodule(path).get_submodule(name)))
    return out


def generator_drawn_from(replace: Replace, model: nn.Module) -> Any:
    """Random numbers are drawn and not used: later random numbers differ."""
    out = replace(model)
    torch.rand(1)
    torch.rand(1, device=next(model.parameters()).device)
    return out


def _around(put: Callable[[Replace, Any], Replace]) -> Callable[..., Fault]:
    return partial(Fault.of, around={"replacement": put}, of_candidate=True)


_each, _all, _whole = _around(each_spoiled), _around(all_spoiled), _around(spoiled)

REPLACEMENTS = (
    _each(eval_lost, seen_by=("replacement.modes",)),
    _each(submodule_modes_lost, seen_by=("replacement.modes",)),
    _each(dtype_lost, seen_by=("replacement.dtypes",)),
    _each(float32_forced, seen_by=("replacement.dtypes",)),
    _each(frozen_lost, seen_by=("replacement.frozen",)),
    _each(hooks_lost, seen_by=("replacement.hooks",)),
    _each(quiet_hooks_lost, seen_by=("replacement.hooks",)),
    _each(accumulated_gradients_lost, seen_by=("replacement.parameters",)),
    _each(dropout_in_eval, seen_by=("replacement.modes",)),
    _each(adapters_lost, seen_by=("replacement.adapters",)),
    _each(new_parameters, seen_by=("replacement.parameters",)),
    _all(ties_broken, seen_by=("replacement.ties",)),
    _all(shared_module_split, seen_by=("replacement.shared",)),
    _all(only_the_first_layer, seen_by=("replacement.layers",)),
    _whole(nested_models_missed, seen_by=("replacement.layers",)),
    _whole(attention_alone_missed, seen_by=("replacement.root",)),
    _each(rates_reset, seen_by=("replacement.rates",)),
    _each(mask_reset, seen_by=("replacement.masks",)),
    _all(heads_of_the_first_layer, seen_by=("replacement.blocks",)),
    _each(bias_reinitialised, seen_by=("replacement.weights",)),
    _whole(copy_returned, seen_by=("replacement.returned",)),
    _whole(none_returned, seen_by=("replacement.returned",)),
    _all(once_more_each_time, seen_by=("replacement.twice",)),
    _whole(norm_replaced_too, seen_by=("replacement.others",)),
    _all(class_patched_for_everyone, seen_by=("replacement.process",)),
    _whole(generator_drawn_from, seen_by=("replacement.process",)),
)
