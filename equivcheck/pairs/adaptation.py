"""A user's functions that adapt a pair: config, inputs and outputs of forward, transfer of weights, and an oracle."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from equivcheck.errors import UsageError
from equivcheck.pairs.given import Given
from equivcheck.pairs.loading import load, name_of

__all__ = ["NO_ADAPTATION", "Adaptation"]

_NAMES = ("config", "inputs", "outputs", "transfer")  # of modules and models
_SEARCHED = ("transfer", "auto")


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """Five functions, each None if the pair tells enough.

    Attributes:
        config: `config(c)` turns a minGPT config into the arguments of the constructors: one object, a tuple of
            positional arguments, a dict of keywords, or (tuple, dict).
        inputs: `inputs(x)` turns the input (x or token ids) into the arguments of forward, in the same forms.
        outputs: `outputs(result)` is the tensor to compare.
        transfer: `transfer(state)`, or `transfer(state, c)`, turns the reference's state_dict into the candidate's by
            differentiable operations: gradients flow back through it. The word `auto` declares that names differ, and
            asks equivcheck to find the transfer.
        oracle: An original that computes the same in float64 and on the CPU, for an original that does not: a function,
            or a factory like the original, whose parameters have the original's names.
        oracle_name: The oracle in messages, by its import string.
        options: The options of a command line that give the same functions.
    """

    config: Callable[..., Any] | None = None
    inputs: Callable[..., Any] | None = None
    outputs: Callable[..., Any] | None = None
    transfer: Callable[..., Any] | Literal["auto"] | None = None
    oracle: Callable[..., Any] | None = None
    oracle_name: str = ""
    options: str = ""

    @classmethod
    def of(cls, root: Path | None = None, **given: Given) -> "Adaptation":
        """The adaptation by these functions.

        Args:
            root: The folder from which import strings by path start.
            given: Functions or import strings, by the names of the attributes.

        Raises:
            UsageError: An object cannot be imported or called.
        """
        functions: dict[str, Any] = {}
        options = ""
        for name, value in given.items():
            function = load(value, root) if isinstance(value, str) and (name, value) != _SEARCHED else value
            if function is not None and not callable(function) and (name, function) != _SEARCHED:
                raise UsageError(
                    f"{name}={value!r} is {type(function).__name__}, which cannot be called: "
                    "give a function or its import string"
                )
            functions[name] = function
            # a function without an import string cannot stand on a command line
            if function is not None and "<" not in name_of(value):
                options += f" --{name} {shlex.quote(name_of(value))}"
        named = given.get("oracle")
        return cls(**functions, oracle_name="" if named is None else name_of(named), options=options)

    @property
    def given(self) -> tuple[str, ...]:
        """The names of the functions that are not None."""
        return tuple(name for name in _NAMES if getattr(self, name) is not None)


NO_ADAPTATION = Adaptation()
"""Signatures tell enough."""
