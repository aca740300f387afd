"""Forward passes in one form, whatever they take and give: a tensor in, a tensor out."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn

from equivcheck.errors import UnfitResult, UsageError
from equivcheck.pairs.factories import arguments
from equivcheck.pairs.loading import line_of

__all__ = [
    "HOW_TO_CALL",
    "HOW_TO_COMPARE",
    "Function",
    "adapt",
    "adapt_module",
    "form_of",
    "takes_three",
    "tensor_of",
    "three_times",
    "unwrapping",
]

Function = Callable[..., Any] | None

HOW_TO_CALL = "pass inputs=, a function that makes of the input what forward takes: an object, a tuple or a dict"
HOW_TO_COMPARE = "pass outputs=, a function from what forward returns to the tensor to compare"
_THREE = (("q", "k", "v"), ("query", "key", "value"), ("queries", "keys", "values"))
_ATTRIBUTES = ("logits", "last_hidden_state")


def takes_three(module: nn.Module, name: str, *, judged: bool = False) -> bool:
    """Whether forward takes queries, keys and values rather than one tensor.

    Args:
        module: A built module.
        name: What it is called in messages.
        judged: Whether it is the candidate's: that it needs more is then for its calls to refuse.

    Raises:
        UsageError: The forward pass of an original takes something else.
    """
    try:
        parameters = inspect.signature(module.forward).parameters.values()
    except (TypeError, ValueError):
        return False
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    required = tuple(p.name for p in named if p.default is p.empty)
    if required in _THREE:
        return True
    if not judged and (len(required) > 1 or (required and named[0].name != required[0])):
        raise UsageError(f"forward of {name} takes {', '.join(required)}: {HOW_TO_CALL}")
    return False


def three_times(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The input as queries, keys and values: self-attention."""
    return x, x, x


def adapt(factory: Callable[..., Any], inputs: Function, outputs: Function) -> Callable[..., Any]:
    """The factory's modules, whose forward takes one tensor and gives one, by a user's functions or those found.

    The modules stay what they are, parameters, hooks and names included: only `forward` is another, on the instance.
    """
    if inputs is None and outputs is None:
        return factory

    def adapted(config: Any) -> Any:
        module = factory(config)
        if isinstance(module, nn.Module):
            adapt_module(module, inputs, outputs)
        return module

    functools.update_wrapper(adapted, factory, updated=())
    return adapted


def adapt_module(module: nn.Module, inputs: Function, outputs: Function) -> None:
    """The same for one module, in place."""
    forward = module.forward
    # a partial: copies of the module are bound to themselves
    module.forward = functools.partial(_forward, forward, inputs, outputs)
    functools.update_wrapper(module.forward, forward)


def is_adapted(module: nn.Module) -> bool:
    """Whether a module's forward goes through `inputs=` or `outputs=`, and takes nothing else."""
    return isinstance(module.forward, functools.partial) and module.forward.func is _forward


def _forward(forward: Callable[..., Any], inputs: Function, outputs: Function, *given: Any, **options: Any) -> Any:
    if inputs is not None:
        given, options = arguments(_asked("inputs=", inputs, given[0]))
    found = forward(*given, **options)
    if outputs is None:
        return found
    return outputs(found) if _unwraps(outputs) else _asked("outputs=", outputs, found)


def _asked(which: str, function: Callable[..., Any], value: Any) -> Any:
    try:
        return function(value)
    except Exception as error:
        raise UsageError(f"{which} raised {type(error).__name__}: {line_of(error)}") from error


def form_of(found: Any) -> str:
    """What a caller takes apart: `a tensor`, `a tuple of 2`, `a mapping` or `an object`, lists being tuples."""
    if isinstance(found, Tensor):
        return "a tensor"
    if isinstance(found, tuple | list):
        return f"a tuple of {len(found)}"
    return "a mapping" if isinstance(found, Mapping) else "an object"


def unwrapping(found: Any) -> Function:
    """A function that takes the tensor out of what has the form of `found`, and raises UnfitResult for another form."""
    return functools.partial(_unwrapped, form_of(found))


def _unwrapped(form: str, found: Any) -> Any:
    if form_of(found) != form:
        raise UnfitResult(f"the forward pass returned {form_of(found)}, and the original {form}: {HOW_TO_COMPARE}")
    return tensor_of(found)


def _unwraps(function: Any) -> bool:
    return isinstance(function, functools.partial) and function.func is _unwrapped


def tensor_of(found: Any) -> Any:
    """The tensor in what a forward pass returned: itself, the first of a tuple, or what is called logits or hidden state."""
    for name in _ATTRIBUTES:
        value = found.get(name) if isinstance(found, Mapping) else getattr(found, name, None)
        if isinstance(value, Tensor):
            return value
    return found[0] if isinstance(found, tuple | list) and found else found
