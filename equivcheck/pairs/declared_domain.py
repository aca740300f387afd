"""The domain that a user declares: an expression, a function of a case, or the import string of one."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from equivcheck.cases.domain import EVERYWHERE, IMPORTS, Domain
from equivcheck.cases.domain_advice import refuse_a_contradiction
from equivcheck.cases.domain_learning import learned
from equivcheck.errors import UsageError
from equivcheck.pairs.loading import load, name_of

__all__ = ["declared_domain"]


def declared_domain(given: str | Callable[..., Any] | None, *, device: str = "", root: Path | None = None) -> Domain:
    """The domain that a user gave.

    Args:
        given: An expression, an import string, a function of a case, or None for every case.
        device: The type of the run's device.
        root: The folder from which an import string by path starts.

    Raises:
        UsageError: The expression does not parse, no case meets it, or the function cannot be imported or called.
    """
    if given is None or given == "":
        return EVERYWHERE.on(device)
    if callable(given):
        return _of_function(given, "" if "<" in name_of(given) else name_of(given), device)
    match = IMPORTS.fullmatch(" ".join(given.split()))
    if match is None:
        domain = Domain.parse(given).on(device)
        refuse_a_contradiction(domain)
        return domain
    function = load(match["spec"], root)
    if not callable(function):
        raise UsageError(
            f"domain={given!r} is {type(function).__name__}, which cannot be called: give a function of a case"
        )
    both = _of_function(function, match["spec"], device) & declared_domain(match["rest"], device=device, root=root)
    refuse_a_contradiction(both)
    return both


def _of_function(function: Callable[..., Any], name: str, device: str) -> Domain:
    return learned(Domain.of(function, name).on(device))
