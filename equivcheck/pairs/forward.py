"""Forward passes in one form: they take one tensor and return one."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from equivcheck.errors import UnfitResult, UsageError
from equivcheck.pairs.factories import arguments
from equivcheck.pairs.loading import line_of

__all__ = [
    "HOW_TO_CALL",
    "HOW_TO_COMPARE",
    "Function",
    "Unwrapping",
    "adapt",
    "adapt_module",
    "arguments_of",
    "form_of",
    "takes_three",
    "taking",
    "tensor_of",
    "three_times",
]

Function = Callable[..., Any] | None

_number = 0  # that of the result to compare; no ContextVar, which torch.compile does not trace
HOW_TO_CALL = "pass inputs=, a function that makes of the input what forward takes: an object, a tuple or a dict"
HOW_TO_COMPARE = "pass outputs=, a function from what forward returns to the tensor to compare"
_THREE = (("q", "k", "v"), ("query", "key", "value"), ("queries", "keys", "values"))
_ATTRIBUTES = ("logits", "last_hidden_state")


def takes_three(module: nn.Module, name: str, *, judged: bool = False) -> bool:
    """Whether forward takes queries, keys and values rather than one tensor.

    Args:
        module: A built module.
        name: The name of the module in messages.
        judged: Whether it is the candidate's, whose calls may raise for other required parameters.

    Raises:
        UsageError: The forward pass of an original requires other parameters.
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
    """A factory of the same modules, whose forward takes one tensor and returns one.

    Modules keep their parameters, hooks and names: only `forward` of the instance is replaced.

    Args:
        factory: Builds a module of a config.
        inputs: Turns the tensor into the arguments of forward; None if forward takes the tensor.
        outputs: Takes the tensor out of the result of forward; None if forward returns the tensor.
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
    """Let forward of one module take one tensor and return one, in place; see `adapt`."""
    forward = module.forward
    # a partial, so that copies of the module call their own forward
    module.forward = functools.partial(_forward, forward, inputs, outputs)
    functools.update_wrapper(module.forward, forward)


def arguments_of(inputs: Function, value: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional arguments and keywords with which forward is called for one input."""
    return ((value,), {}) if inputs is None else arguments(_call_user_function("inputs=", inputs, value))


def is_adapted(module: nn.Module) -> bool:
    """Whether `adapt_module` has replaced a module's forward, which then takes one tensor alone."""
    return isinstance(module.forward, functools.partial) and module.forward.func is _forward


def _forward(forward: Callable[..., Any], inputs: Function, outputs: Function, *given: Any, **options: Any) -> Any:
    if inputs is not None:
        given, options = arguments_of(inputs, given[0])
    result = forward(*given, **options)
    if outputs is None:
        return result
    return outputs(result) if isinstance(outputs, Unwrapping) else _call_user_function("outputs=", outputs, result)


def _call_user_function(option: str, function: Callable[..., Any], value: Any) -> Any:
    try:
        return function(value)
    except Exception as error:
        raise UsageError(f"{option} raised {type(error).__name__}: {line_of(error)}") from error


def form_of(result: Any) -> str:
    """The form of a result in words: `a tensor`, `a tuple of 2` (of a list, too), `a mapping` or `an object`."""
    if isinstance(result, Tensor):
        return "a tensor"
    if isinstance(result, tuple | list):
        return f"a tuple of {len(result)}"
    return "a mapping" if isinstance(result, Mapping) else "an object"


@dataclass(frozen=True)
class Unwrapping:
    """Takes the tensor out of results of one form, and raises UnfitResult for other forms.

    Attributes:
        form: The form, as `form_of` says it.
        further: The number of results besides the first, if the tensor is the first of a tuple.
    """

    form: str
    further: int = 0

    @classmethod
    def of(cls, result: Any) -> "Unwrapping":
        """The one for results like this one."""
        first_is_it = isinstance(result, tuple | list) and result and isinstance(result[0], Tensor)
        return cls(form_of(result), len(result) - 1 if first_is_it else 0)

    def __call__(self, result: Any) -> Any:
        """The tensor, or inside of `taking` a further result."""
        if form_of(result) != self.form:
            raise UnfitResult(
                f"the forward pass returned {form_of(result)}, and the original {self.form}: {HOW_TO_COMPARE}"
            )
        return result[_number] if _number else tensor_of(result)


@contextmanager
def taking(number: int) -> Iterator[None]:
    """Inside of this context the result of this number is taken out of a tuple in the place of the first, which is 0."""
    global _number
    before, _number = _number, number
    try:
        yield
    finally:
        _number = before


def tensor_of(result: Any) -> Any:
    """The tensor in the result of a forward pass: its logits or last hidden state, the first of a tuple, or itself."""
    for name in _ATTRIBUTES:
        value = result.get(name) if isinstance(result, Mapping) else getattr(result, name, None)
        if isinstance(value, Tensor):
            return value
    return result[0] if isinstance(result, tuple | list) and result else result
