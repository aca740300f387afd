"""Functions of q, k, v in one form: the usual options that a function takes, and the names that it gives them."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from equivcheck.errors import UsageError

__all__ = [
    "HOW_TO_CALL_IT",
    "OPTIONS",
    "may_take_qkv",
    "normal",
    "options_of",
    "takes_qkv",
]

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "is_causal": ("is_causal", "causal"),
    "dropout_p": ("dropout_p", "dropout", "dropout_rate"),
    "scale": ("scale", "sm_scale", "softmax_scale", "scaling"),
    "attn_mask": ("attn_mask", "attention_mask", "mask"),
    "enable_gqa": ("enable_gqa",),
}
"""The options of `F.scaled_dot_product_attention`, and the names that kernels give them."""

HOW_TO_CALL_IT = "a function is f(q, k, v, *, is_causal, dropout_p, scale), each option optional: wrap it in one"


def _parameters(function: Callable[..., Any]) -> list[inspect.Parameter] | None:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # a built-in, such as F.scaled_dot_product_attention
        return None


def takes_qkv(function: Callable[..., Any]) -> bool:
    """Whether the first three parameters are q, k and v; without a signature, whether it runs on three tensors."""
    parameters = _parameters(function)
    if parameters is None and not inspect.isclass(function):
        q, k, v = torch.linspace(-1, 1, 3 * 48).view(3, 2, 2, 3, 4).unbind()
        try:
            output = function(q, k, v)
        except Exception:
            return False
        return isinstance(output, Tensor) and output.shape == q.shape
    positional = [p.name for p in parameters or () if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    return [name[:1].lower() for name in positional[:3]] == ["q", "k", "v"] and not inspect.isclass(function)


def may_take_qkv(function: Callable[..., Any]) -> bool:
    """Whether the function takes q, k, v, or may take them because its parameters are not known."""
    parameters = _parameters(function)
    return parameters is None or any(p.kind is p.VAR_POSITIONAL for p in parameters) or takes_qkv(function)


def options_of(function: Callable[..., Any], name: str, *, judged: bool = False) -> dict[str, str]:
    """The options that a function takes, each with the name of its parameter.

    Args:
        function: A function of q, k, v.
        name: The name of the function in messages.
        judged: Whether it is the candidate, whose calls may raise for a required parameter that is not known.

    Raises:
        UsageError: An original requires a parameter that is not known.
    """
    parameters = _parameters(function)
    if parameters is None or any(p.kind is p.VAR_KEYWORD for p in parameters):
        taken = {p.name for p in parameters or ()}
        return {option: next((n for n in names if n in taken), option) for option, names in OPTIONS.items()}
    options: dict[str, str] = {}
    for parameter in parameters[3:]:
        option = next((o for o, names in OPTIONS.items() if parameter.name in names), None)
        if option is not None and parameter.kind is not parameter.POSITIONAL_ONLY:
            options.setdefault(option, parameter.name)
        elif parameter.default is parameter.empty and parameter.kind is not parameter.VAR_POSITIONAL and not judged:
            raise UsageError(f"{name} needs {parameter.name!r}, which is not known: {HOW_TO_CALL_IT}")
    return options


def normal(function: Callable[..., Any], options: Mapping[str, str]) -> Callable[..., Any]:
    """The function with the contract's names of options: itself if it has them already."""
    if all(options.get(name) == name for name in ("is_causal", "dropout_p", "scale")):
        return function

    def normalised(q: Tensor, k: Tensor, v: Tensor, **given: Any) -> Any:
        return function(q, k, v, **{taken: given[name] for name, taken in options.items() if name in given})

    functools.update_wrapper(normalised, function, updated=())
    parameters = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in "qkv"]
    parameters += [inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY) for n in options]
    normalised.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # for inspect.signature
    return normalised
