"""The errors of equivcheck: mistakes of a user, in one line each, findings of checks, and limits of what is known of a pair."""

import math
from functools import partial
from typing import Any

__all__ = [
    "DeviceLost",
    "Mismatch",
    "NotOpened",
    "Raised",
    "ReferenceRaises",
    "ReportError",
    "ToolError",
    "UnfitResult",
    "UsageError",
]


class UsageError(Exception):
    """The pair could not be judged: the message names what was given, what is allowed and what to do."""


class DeviceLost(UsageError):
    """A kernel left the GPU unusable for this process: the message names the case, the error, and how to find the kernel."""


class ReportError(UsageError):
    """A report file that cannot be trusted: the message names the file and what is wrong with it."""


class ToolError(Exception):
    """Equivcheck's own code raised: it says nothing of the pair, and nothing of the pair may be read off it."""


class ReferenceRaises(Exception):
    """The original raises on a case, in the way in which it was run: then nothing is asked of the candidate there."""


class UnfitResult(TypeError):
    """A forward pass returned what cannot be compared: no tensor, or one that has no values of its own to read."""


class Mismatch(AssertionError):
    """A check that failed: the message tells what, how many, how big, where and what was allowed.

    `ratio` is error / budget where one was measured, infinity where there is none to measure.
    """

    def __init__(self, message: str, *, ratio: float = math.inf, where: str = "") -> None:
        super().__init__(message)
        self.ratio = ratio
        self.where = where

    def __reduce__(self) -> Any:
        return partial(type(self), ratio=self.ratio, where=self.where), self.args


class Raised(Mismatch):
    """What the candidate raised where the original runs."""


class NotOpened(Exception):
    """The inside of an attention is not known: its dropout masks cannot be read off or put in."""
