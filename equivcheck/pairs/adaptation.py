"""What a user says about a pair that is not minGPT's: what it is built from, what forward takes and gives, how weights go over."""

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from equivcheck.errors import UsageError
from equivcheck.pairs.given import Given
from equivcheck.pairs.loading import load, name_of

__all__ = ["NOTHING_SAID", "Adaptation"]

_NAMES = ("config", "inputs", "outputs", "transfer")
_FIND_IT = ("transfer", "auto")


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """Four functions, each None where what signatures tell is enough.

    `config(c)` makes of a minGPT config what the constructors take: one object, a tuple of positional arguments or a dict of
    keywords. `inputs(x)` makes of the input (x or token ids) what forward takes, in the same three forms, or both as
    (tuple, dict). `outputs(result)` is the tensor to compare. `transfer(state)`, or `transfer(state, c)`, makes of the
    reference's state_dict the candidate's, by differentiable operations: gradients come back through it; the word `auto`
    says that names may differ, and that the transfer is to be found.
    """

    config: Callable[..., Any] | None = None
    inputs: Callable[..., Any] | None = None
    outputs: Callable[..., Any] | None = None
    transfer: Callable[..., Any] | Literal["auto"] | None = None
    options: str = ""  # of a command line that says the same

    @classmethod
    def of(cls, root: Path | None = None, **given: Given) -> "Adaptation":
        """The functions behind import strings (of `root`), and those given as they are; a UsageError for what cannot be called."""
        loaded: dict[str, Any] = {}
        options = ""
        for name, value in given.items():
            found = load(value, root) if isinstance(value, str) and (name, value) != _FIND_IT else value
            if found is not None and not callable(found) and (name, found) != _FIND_IT:
                raise UsageError(
                    f"{name}={value!r} is {type(found).__name__}, which cannot be called: give a function or its import string"
                )
            loaded[name] = found
            if found is not None and "<" not in name_of(
                value
            ):  # what has no import string cannot be said on a command line
                options += f" --{name} {shlex.quote(name_of(value))}"
        return cls(**loaded, options=options)

    @property
    def given(self) -> tuple[str, ...]:
        """The names of those that are not None."""
        return tuple(name for name in _NAMES if getattr(self, name) is not None)


NOTHING_SAID = Adaptation()
"""What signatures tell is enough."""
