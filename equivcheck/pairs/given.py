"""The forms in which a user gives a function: the function, an import string, or None."""

from collections.abc import Callable
from typing import Any

__all__ = ["Given"]

Given = Callable[..., Any] | str | None
"""A function, its import string, or None for the default."""
