"""The errors of equivcheck: mistakes of a user, failures of checks, and limits of the knowledge of a pair."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

__all__ = [
    "DeviceLost",
    "Mismatch",
    "NoOracle",
    "NotOpened",
    "Raised",
    "ReferenceRaises",
    "ReportError",
    "ToolError",
    "UnfitResult",
    "UsageError",
]


class UsageError(Exception):
    """The pair could not be judged: the message names the given value, the allowed values and a remedy."""


class NoOracle(UsageError):
    """The original does not run in float64, and no oracle was given."""


class DeviceLost(UsageError):
    """A kernel left the GPU unusable for this process: the message names case, error, and how to find the kernel.

    Attributes:
        side: The side that ran, `reference` or `candidate`; `""` if that is not known.
    """

    def __init__(self, message: str, side: str = "") -> None:
        super().__init__(message)
        self.side = side


class ReportError(UsageError):
    """A report file cannot be trusted: the message names the file and the reason."""


class ToolError(Exception):
    """The code of equivcheck itself raised: nothing about the pair follows from it."""


class ReferenceRaises(Exception):
    """The original raises on a case in this use: then the candidate is not judged there."""


class UnfitResult(TypeError):
    """A forward pass returned something that cannot be compared: no tensor, or a tensor without readable values."""


class Mismatch(AssertionError):
    """A check failed: the message names the tensor, how many elements, how large, where, and the allowed error.

    Attributes:
        ratio: error / budget; infinity if no error was measured.
        where: The thing that failed, such as the name of a tensor.
        finding: The part of the check's property that fails, one of its findings in the catalogue; empty for the main
            one.
        spot: The `tensor`, `index`, `candidate` and `oracle` of the worst element, where tensors were compared.
    """

    def __init__(
        self,
        message: str,
        *,
        ratio: float = math.inf,
        where: str = "",
        finding: str = "",
        spot: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.ratio = ratio
        self.where = where
        self.finding = finding
        self.spot = dict(spot or {})

    def __reduce__(self) -> Any:
        fields: dict[str, Any] = {"ratio": self.ratio, "where": self.where, "finding": self.finding, "spot": self.spot}
        return partial(type(self), **fields), self.args


class Raised(Mismatch):
    """The candidate raised an exception on a case that the original runs."""


class NotOpened(Exception):
    """The inside of an attention is unknown: its dropout masks can neither be read nor set."""
