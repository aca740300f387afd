"""Factories that take a minGPT config, made of constructors by a user's `config=` or by the names of parameters."""

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

from equivcheck.cases.config import CaseConfig
from equivcheck.cases.names import field_of
from equivcheck.errors import UsageError
from equivcheck.pairs.loading import line_of

__all__ = ["HOW_TO_BUILD", "arguments", "factory_of"]

HOW_TO_BUILD = (
    "pass config=, a function that makes of a minGPT config what the constructor takes: an object, a tuple or a dict"
)
_CONFIGS = ("config", "cfg", "conf", "args", "params", "hparams")
_OPTIONAL = ("head_size", "block_size", "attn_pdrop", "resid_pdrop", "embd_pdrop", "n_layer", "vocab_size")


def factory_of(
    constructor: Callable[..., Any], config: Callable[..., Any] | None, name: str, *, judged: bool = False
) -> Callable[..., Any]:
    """`constructor` as a factory that takes a minGPT config: itself if it takes one, else called by parameter names.

    Args:
        constructor: A class or a function.
        config: A user's `config=`, if there is one.
        name: The name of the constructor in messages.
        judged: Whether it is the candidate's, whose calls may raise for a required parameter that is not known.

    Raises:
        UsageError: It is no constructor, or an original requires a parameter that is not known.
    """
    if isinstance(constructor, nn.Module):
        # one instance cannot be built in the shapes and dtypes of the cases, and a call would run forward
        type_name = type(constructor).__name__
        raise UsageError(
            f"{name} is an instance of {type_name}: give the class itself, or a factory f(config) that makes one"
        )
    if config is not None:
        return _wrapped(constructor, config)
    try:
        parameters = list(inspect.signature(constructor).parameters.values())
    except (TypeError, ValueError):
        return constructor
    if not parameters and not judged:
        raise UsageError(f"{name} takes no argument, and is called with a config: {HOW_TO_BUILD}")
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    required = [p for p in named if p.default is p.empty]
    unknown = [p.name for p in required if not field_of(p.name)]
    if not named or named[0].name in _CONFIGS or (len(required) == 1 and unknown):
        rest = [p for p in required if p is not named[0]] if named else []
        unknown = [p.name for p in rest if not field_of(p.name)]
        if not rest or (judged and unknown):
            return constructor
        if not unknown:
            return _wrapped(constructor, functools.partial(_with_config, {p.name: field_of(p.name) for p in rest}))
    elif not required and not any(field_of(p.name) in ("n_embd", "n_head") for p in named):
        return constructor
    if unknown and not judged:
        raise UsageError(
            f"{name} takes {', '.join(p.name for p in required)}, and {', '.join(unknown)} is not known: {HOW_TO_BUILD}"
        )
    fields = {
        p.name: field_of(p.name)
        for p in named
        if (p in required and p.name not in unknown)
        or field_of(p.name) in (*_OPTIONAL, "n_embd", "n_head")
        or (p.name == "batch_first" and p.default is False)
    }
    return _wrapped(constructor, functools.partial(_by_name, fields))


def _with_config(fields: dict[str, str], config: CaseConfig) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return (config,), _by_name(fields, config)


def _by_name(fields: dict[str, str], config: CaseConfig) -> dict[str, Any]:
    return {name: config.value_of(field) for name, field in fields.items()}


def arguments(given: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments from the form that a user returned: an object, tuple, dict or (tuple, dict)."""
    if isinstance(given, dict):
        return (), given
    if type(given) is tuple:
        if len(given) == 2 and type(given[0]) is tuple and isinstance(given[1], dict):
            return given[0], given[1]
        return given, {}
    return (given,), {}


def _wrapped(constructor: Callable[..., Any], config: Callable[..., Any]) -> Callable[..., Any]:
    def factory(c: Any) -> Any:
        try:
            positional, named = arguments(config(c))
        except Exception as error:
            message = f"config= raised {type(error).__name__}: {line_of(error)}; it is called with a minGPT config"
            raise UsageError(message) from error
        return constructor(*positional, **named)

    # the factory keeps the signature and source of the user's constructor
    functools.update_wrapper(factory, constructor, updated=())
    return factory
