"""Classes swapped in place: the modules of a model become fused ones, and the ones that they were, and stay the same objects."""

import copyreg
import types
import warnings
from collections.abc import Iterable
from typing import Any

from torch import nn

__all__ = ["replace", "restore"]

_REPLACED = "_replaces"  # in the namespace of a fused class: the class that it takes the place of


def replace(model: nn.Module, target: type[nn.Module], fused: type[nn.Module], needed: Iterable[str]) -> None:
    """Make every `target` inside `model` a `fused` one, in place; what is one already stays.

    Where `fused` does not stand for `target`, the class is made of both, so that methods of the target and `isinstance` live on.
    Raises ValueError, and has changed nothing, where there is nothing to replace or an attribute of `needed` is missing.
    """
    found, left_alone, swaps = False, [], []
    for name, module in model.named_modules():
        kind, told = type(module), name or "the model itself"
        if _REPLACED in vars(kind):
            found |= vars(kind)[_REPLACED] is target
        elif kind is target and "forward" in vars(module):
            left_alone.append(f"{told} (its forward is set on the instance)")
        elif kind is target:
            missing = [a for a in needed if getattr(module, a, None) is None]
            if missing:
                raise ValueError(
                    f"{told} is a {target.__qualname__} without {', '.join(missing)}: nothing was replaced; "
                    f"an attention that can be replaced has {', '.join(needed)}"
                )
            swaps.append(module)
        elif issubclass(kind, target):
            left_alone.append(f"{told} ({kind.__qualname__})")
    if not (found or left_alone or swaps):
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
    """Give every `fused` module inside `model` the class back that it had, in place; raises ValueError where there is none.

    Subclasses of `fused` that somebody else defined are left alone and named in a warning.
    """
    original = vars(fused)[_REPLACED]
    found, left_alone = False, []
    for name, module in model.named_modules():
        kind = type(module)
        if _REPLACED in vars(kind):
            _become(module, vars(kind)[_REPLACED])
            found = True
        elif isinstance(module, fused):
            left_alone.append(f"{name or 'the model itself'} ({kind.__qualname__})")
        else:
            found |= kind is original
    if left_alone:
        warnings.warn(f"left alone, because nothing made them of another class: {', '.join(left_alone)}", stacklevel=3)
    elif not found:
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


_made: dict[tuple[type[nn.Module], type[nn.Module]], type[nn.Module]] = {}


def _combined(fused: type[nn.Module], target: type[nn.Module]) -> type[nn.Module]:
    """`fused` where it stands for `target`, else a class of both that does."""
    if vars(fused)[_REPLACED] is target:
        return fused
    if (fused, target) in _made:
        return _made[fused, target]

    def reduced(self: nn.Module, protocol: Any) -> Any:
        """Copied and pickled by the two classes it is made of: this one has no name to be found by."""
        function, arguments, *rest = super(made, self).__reduce_ex__(max(protocol, 2))  # type: ignore[arg-type]
        if function is copyreg.__newobj__ and arguments == (made,):  # type: ignore[attr-defined]
            function, arguments = _blank, (fused, target)
        return (function, arguments, *rest)

    name = f"Flash{target.__name__}"
    body = {_REPLACED: target, "__slots__": (), "__module__": target.__module__, "__reduce_ex__": reduced}
    try:
        made = types.new_class(name, (fused, target), exec_body=lambda namespace: namespace.update(body))
    except TypeError as error:
        raise ValueError(f"no fused class can be made of {target.__qualname__}: {error}") from None
    return _made.setdefault((fused, target), made)


def _blank(fused: type[nn.Module], target: type[nn.Module]) -> nn.Module:
    kind = _combined(fused, target)
    return kind.__new__(kind)
