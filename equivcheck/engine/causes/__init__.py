"""Causes: known faults that, planted into the original, give the candidate's numbers."""

from collections.abc import Sequence

from equivcheck.cases.case import Case
from equivcheck.engine.causes.cause import causes_inside
from equivcheck.engine.causes.modes import causes_of_modes
from equivcheck.engine.causes.options import causes_of_options
from equivcheck.pairs.pair import Pair
from equivcheck.report.diagnosis import Cause

__all__ = ["causes_of"]


def causes_of(subject: Pair, failed: Sequence[Case], *, gradients: bool) -> tuple[Cause, ...]:
    """The causes that fit all that is compared: of a function's options first, then of modes, then of the attention.

    Args:
        subject: The pair.
        failed: The failing cases, the smallest first.
        gradients: Whether a cause must fit the gradients, too.
    """
    return (
        causes_of_options(subject, failed, gradients=gradients)
        or causes_of_modes(subject, failed)
        or causes_inside(subject, failed, gradients=gradients)
    )
