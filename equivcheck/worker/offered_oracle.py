"""An oracle that equivcheck offers for an original without float64: a reading that computes the same."""

from collections.abc import Callable, Sequence

from equivcheck.adapters import readings
from equivcheck.engine.oracle_agreement import agreement
from equivcheck.errors import UsageError
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.supported_dtypes import usable_dtypes

__all__ = ["offer"]


def offer(with_oracle: Callable[[str], Pair], dtypes: Sequence[str]) -> str:
    """The end of a message that names a reading which computes what the original does; empty if none does.

    Args:
        with_oracle: Gives the pair with an oracle by its import string.
        dtypes: The dtypes that are asked for.
    """
    for reading in readings.READINGS:
        name = f"{readings.__name__}:{reading}"
        try:
            subject = with_oracle(name)
            if not subject.traits.function:
                return ""
            usable, _ = usable_dtypes(subject, dtypes)
            both = agreement(subject, usable)
        except UsageError:
            continue
        if both.holds:
            return f"; {name} computes the same on {both.judged} of {both.judged} cases: run again with --oracle {name}"
    return ""
