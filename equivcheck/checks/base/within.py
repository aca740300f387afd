"""The condition, call or part in which a difference arose, in front of its message."""

from collections.abc import Iterator
from contextlib import contextmanager

from equivcheck.errors import Mismatch, Raised

__all__ = ["within"]


@contextmanager
def within(what: str, *, separator: str = ": ", where: str = "", plain: bool = False) -> Iterator[None]:
    """Put `what` in front of the message of a Mismatch that is raised inside; the ratio stays.

    Args:
        what: The condition, call or part in which the difference arises.
        separator: The text between `what` and the message.
        where: The place to report; by default the difference's.
        plain: Whether an exception of the candidate counts as any other difference from here on. Then shrinking may
            turn it into one, and it is no refusal of a wide head.

    Raises:
        Mismatch: A difference arose inside. It is a Raised if the candidate raised, unless `plain`.
    """
    try:
        yield
    except Mismatch as error:
        kind = Raised if isinstance(error, Raised) and not plain else Mismatch
        raise kind(
            f"{what}{separator}{error}",
            ratio=error.ratio,
            where=where or error.where,
            finding=error.finding,
            spot=error.spot,
        ) from None
