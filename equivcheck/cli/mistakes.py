"""Mistakes in the arguments of a command that show without torch: refused before a process is started for them."""

from collections.abc import Mapping, Sequence
from typing import Any

from equivcheck.errors import UsageError
from equivcheck.report.chosen_checks import chosen_checks, refuse_unknown_checks
from equivcheck.runtime.device import refuse_unknown_device
from equivcheck.runtime.import_strings import refuse_misspelt_pair
from equivcheck.runtime.memory_limit import WITHOUT_LIMIT
from equivcheck.runtime.required_kernels import requirement

__all__ = ["refuse_mistakes"]


def refuse_mistakes(
    reference: str,
    candidate: str,
    *,
    kind: str,
    device: str,
    checks: Sequence[str] = (),
    exclude: Sequence[str] = (),
    require_backend: Sequence[str] = (),
    max_memory_ratio: float | None = None,
    functions: Mapping[str, Any],
    setup: str | None = None,
) -> None:
    """Refuse what is wrong for certain; the rest is left to the process that loads the pair.

    Args:
        reference: The import string of the original.
        candidate: The import string of the candidate.
        kind: The kind of the pair, or auto.
        device: The word for the device.
        checks: The names of the checks to run.
        exclude: The names of checks that are left out.
        require_backend: The kernels that must run.
        max_memory_ratio: The limit of the candidate's memory, which the check `memory` judges.
        functions: The import strings of the user's functions, by name.
        setup: The import string of a function that each process calls first.

    Raises:
        UsageError: An import string names nothing, or there is no such device, check or kernel.
    """
    refuse_unknown_device(device)
    refuse_unknown_checks(checks, exclude)
    if kind != "auto":
        chosen_checks(checks, exclude, kind)
    if max_memory_ratio is None and "memory" in checks:
        raise UsageError(WITHOUT_LIMIT)
    requirement(require_backend)
    refuse_misspelt_pair(reference, candidate, functions, setup)
