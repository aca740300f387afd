"""The limit of the candidate's memory that a user sets; torch is not needed to read it."""

import math

from equivcheck.errors import UsageError

__all__ = ["WITHOUT_LIMIT", "memory_limit"]

WITHOUT_LIMIT = "the check 'memory' judges against a limit: say which one with --max-memory-ratio, such as 1.0"
"""The mistake of a run that names the check, and no limit."""


def memory_limit(ratio: object, option: str = "--max-memory-ratio") -> float | None:
    """How many times the original's peak memory the candidate may take; None if there is no limit.

    Args:
        ratio: The ratio that was given.
        option: The option that an error names.

    Raises:
        UsageError: It is no finite number above 0.
    """
    if ratio is None:
        return None
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 < ratio < math.inf:
        raise UsageError(f"{option} {ratio!r}: a finite number above 0 is allowed, as in {option} 1.0")
    return float(ratio)
