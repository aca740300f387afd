"""Signatures as Python binds them: the candidate takes every call that the original takes."""

import inspect
from collections.abc import Callable, Iterator
from inspect import Parameter, Signature
from typing import Any

from equivcheck.errors import Mismatch

__all__ = ["must_bind", "must_take_keywords", "refused_call"]

_VARIADIC = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


def must_take_keywords(what: str, reference: Callable[..., Any], candidate: Callable[..., Any]) -> None:
    """Check that the candidate takes every keyword-only argument of the original; its other arguments are free.

    Args:
        what: The name of the callable, for the message.
        reference: The original's callable.
        candidate: The candidate's.

    Raises:
        Mismatch: A keyword-only argument is missing.
    """
    try:
        signatures = inspect.signature(reference), inspect.signature(candidate)
    except (TypeError, ValueError):  # built in: nothing is known of it
        return
    taken = signatures[1].parameters
    if any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        return
    for name, parameter in signatures[0].parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY and name not in taken:
            raise Mismatch(
                f"{what} takes {signatures[1]}: {name!r} of the original's {signatures[0]} is missing", where=what
            )


def must_bind(what: str, reference: Callable[..., Any], candidate: Callable[..., Any]) -> None:
    """Check that the candidate binds every call that the original binds.

    Args:
        what: The name of the callable, such as `forward`.
        reference: The original's callable.
        candidate: The candidate's.

    Raises:
        Mismatch: The candidate refuses a call that the original takes, or binds it in another order.
    """
    try:
        signatures = inspect.signature(reference), inspect.signature(candidate)
    except (TypeError, ValueError):  # built in: nothing is known of it
        return
    refused = refused_call(*signatures)
    if refused:
        raise Mismatch(
            f"{what}{signatures[0]} is the original's, and {what}{signatures[1]} is here: {refused}", where=what
        )


def refused_call(reference: Signature, candidate: Signature) -> str:
    """Describe a call that `reference` takes and `candidate` does not; empty if there is none.

    Arguments that an original takes by `*args` or `**kwargs` have no names. The candidate need not take them.
    """
    # an original with *args or **kwargs may need more arguments than it names: then a call may lack some
    whole = not any(p.kind in _VARIADIC for p in reference.parameters.values())
    bind = candidate.bind if whole else candidate.bind_partial
    for positional, named in _calls(reference):
        shown = ", ".join((*positional, *(f"{name}=…" for name in named)))
        try:
            bound = bind(*positional, **{name: name for name in named})
        except TypeError as error:
            return f"called with ({shown}), {error}"
        for name, value in bound.arguments.items():
            if isinstance(value, str) and value != name and name in reference.parameters:
                return f"called with ({shown}), {value} arrives as {name}"
    return ""


def _calls(signature: Signature) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Calls that a signature takes, with the least arguments, the most and between, as positional and keyword names."""
    named = [p for p in signature.parameters.values() if p.kind not in _VARIADIC]
    needed = [p for p in named if p.default is p.empty]
    placed = tuple(p.name for p in needed if p.kind is not p.KEYWORD_ONLY)
    keyed = tuple(p.name for p in needed if p.kind is p.KEYWORD_ONLY)
    yield placed, keyed
    only_placed = tuple(p.name for p in needed if p.kind is p.POSITIONAL_ONLY)
    yield only_placed, tuple(p.name for p in needed if p.kind is not p.POSITIONAL_ONLY)
    yield tuple(p.name for p in named if p.kind is not p.KEYWORD_ONLY), keyed
    for parameter in named:
        if parameter not in needed and parameter.kind is not parameter.POSITIONAL_ONLY:
            yield placed, (*keyed, parameter.name)
