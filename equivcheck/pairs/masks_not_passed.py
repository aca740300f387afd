"""Masks that a forward pass takes and is never given: they are named, because what they do is not judged."""

import inspect
from collections.abc import Callable
from typing import Any

from torch import nn

__all__ = ["masks_not_passed"]

_SUGGEST_A_MASK = ("mask", "padding", "lengths", "cu_seqlens", "position_ids")


def masks_not_passed(module: nn.Module, given: Callable[[], tuple[tuple[Any, ...], dict[str, Any]]]) -> tuple[str, ...]:
    """Return a note on the optional parameters of forward whose names suggest a mask and that no case passes.

    Args:
        module: A built original.
        given: The positional arguments and the keywords that its forward is called with.

    Returns:
        One note, or none.
    """
    try:
        signature = inspect.signature(module.forward)
    except (TypeError, ValueError):
        return ()
    names = [
        name
        for name, parameter in signature.parameters.items()
        if parameter.default is not parameter.empty and any(word in name.lower() for word in _SUGGEST_A_MASK)
    ]
    if not names:
        return ()
    positional, keywords = given()
    try:
        passed = signature.bind_partial(*positional, **keywords).arguments
    except TypeError:  # a wrapper around forward takes other arguments than the signature says
        passed = keywords
    names = [name for name in names if name not in passed]
    if not names:
        return ()
    they, do = ("it", "it does") if len(names) == 1 else ("them", "they do")
    listed = " and ".join(part for part in (", ".join(names[:-1]), names[-1]) if part)
    return (f"forward takes {listed}, and no case passes {they}: what {do} was not judged",)
