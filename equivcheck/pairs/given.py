"""How a user hands a function over: as it is, by an import string, or not at all."""

from collections.abc import Callable
from typing import Any

__all__ = ["Given"]

Given = Callable[..., Any] | str | None
"""A function, its import string, or None where the default will do."""
