"""Modules of a model that become fused ones, and what they were before, by a change of their class in place."""

import copyreg
import types
import warnings
from collections.abc import Iterable
from typing import Any

from torch import nn

__all__ = ["replace", "restore"]

_REPLACED = "_replaces"  # in the namespace of a fused class: the class that it replaces


def replace(model: nn.Module, target: type[nn.Module], fused: type[nn.Module], needed: Iterable[str]) -> None:
    """Make every `target` inside `model` a `fused` one, in place; modules that are fused already stay.

    If `fused` does not replace `target`, the new class inherits from both: methods of the target and `isinstance` still
    work.

    Args:
        model: The model, which may itself be a `target`.
        target: The class of the modules to replace; its subclasses are left alone and named in a warning.
        fused: The class that they become.
        needed: The attributes that each module must have.

    Raises:
        ValueError: There is nothing to replace, or an attribute of `needed` is missing. The model is unchanged.
    """
    already_fused, left_alone, swaps = False, [], []
    for name, module in model.named_modules():
        kind, place = type(module), name or "the model itself"
        if _REPLACED in vars(kind):
            already_fused |= vars(kind)[_REPLACED] is target
        elif kind is target and "forward" in vars(module):
            left_alone.append(f"{place} (its forward is set on the instance)")
        elif kind is target:
            missing = [a for a in needed if getattr(module, a, None) is None]
            if missing:
                raise ValueError(
                    f"{place} is a {target.__qualname__} without {', '.join(missing)}: nothing was replaced; "
                    f"an attention that can be replaced has {', '.join(needed)}"
                )
            swaps.append(module)
        elif issubclass(kind, target):
            left_alone.append(f"{place} ({kind.__qualname__})")
    if not (already_fused or left_alone or swaps):
        raise ValueError(
            f"no {target.__module__}.{target.__qualname__} in {type(model).__qualname__}: nothing was replaced; "
            f"pass target= the class of the attention that the model uses; its modules are {_kinds(model)}"
        )
    for module in swaps:
        _become(module, _combined(fused, target))
        if getattr(module, "attention_weights", None) is not None:
            module.attention_weights = None
    if left_alone:
        warnings.warn(
            f"left alone, because they may compute something other than {target.__qualname__}: "
            + ", ".join(left_alone),
            stacklevel=3,
        )


def restore(model: nn.Module, fused: type[nn.Module]) -> None:
    """Give every `fused` module inside `model` its previous class, in place.

    Subclasses of `fused` that `replace` did not create are left alone and named in a warning.

    Raises:
        ValueError: There is no such module, and none of the class that `fused` replaces.
    """
    original = vars(fused)[_REPLACED]
    restored, left_alone = False, []
    for name, module in model.named_modules():
        kind = type(module)
        if _REPLACED in vars(kind):
            _become(module, vars(kind)[_REPLACED])
            restored = True
        elif isinstance(module, fused):
            left_alone.append(f"{name or 'the model itself'} ({kind.__qualname__})")
        else:
            restored |= kind is original
    if left_alone:
        warnings.warn(f"left alone, because nothing made them of another class: {', '.join(left_alone)}", stacklevel=3)
    elif not restored:
        raise ValueError(
            f"no {fused.__module__}.{fused.__qualname__} in {type(model).__qualname__}: nothing was restored; "
            f"its modules are {_kinds(model)}"
        )


def _become(module: nn.Module, kind: type[nn.Module]) -> None:
    try:
        object.__setattr__(module, "__class__", kind)
    except TypeError as error:
        raise ValueError(
            f"a {type(module).__qualname__} cannot become a {kind.__qualname__} in place: {error}"
        ) from None


def _kinds(model: nn.Module) -> str:
    kinds = list(dict.fromkeys(type(m).__qualname__ for m in model.modules()))
    return ", ".join(kinds[:12]) + (", …" if len(kinds) > 12 else "")


_combined_classes: dict[tuple[type[nn.Module], type[nn.Module]], type[nn.Module]] = {}


def _combined(fused: type[nn.Module], target: type[nn.Module]) -> type[nn.Module]:
    """`fused` if it replaces `target`, else a class of both that does."""
    if vars(fused)[_REPLACED] is target:
        return fused
    if (fused, target) in _combined_classes:
        return _combined_classes[fused, target]

    def reduced(self: nn.Module, protocol: Any) -> Any:
        """Copy and pickle by the two base classes: no import can find the combined class."""
        function, arguments, *rest = super(combined, self).__reduce_ex__(max(protocol, 2))  # type: ignore[arg-type]
        if function is copyreg.__newobj__ and arguments == (combined,):  # type: ignore[attr-defined]
            function, arguments = _blank, (fused, target)
        return (function, arguments, *rest)

    name = f"Flash{target.__name__}"
    body = {_REPLACED: target, "__slots__": (), "__module__": target.__module__, "__reduce_ex__": reduced}
    try:
        combined = types.new_class(name, (fused, target), exec_body=lambda namespace: namespace.update(body))
    except TypeError as error:
        raise ValueError(f"no fused class can be made of {target.__qualname__}: {error}") from None
    return _combined_classes.setdefault((fused, target), combined)


def _blank(fused: type[nn.Module], target: type[nn.Module]) -> nn.Module:
    kind = _combined(fused, target)
    return kind.__new__(kind)
