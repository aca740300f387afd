"""Where a difference arose, said in front of its message."""

from collections.abc import Iterator
from contextlib import contextmanager

from equivcheck.errors import Mismatch, Raised

__all__ = ["within"]


@contextmanager
def within(what: str, *, separator: str = ": ", where: str = "", plain: bool = False) -> Iterator[None]:
    """Inside, the message of a Mismatch begins with `what`; its ratio stays.

    Args:
        what: In which condition, call or part the difference arises.
        separator: What stands between this and the message.
        where: The place to report, by default the one of the difference.
        plain: Whether what the candidate raised counts as any other difference from here on: it may be shrunk into one,
            and is no refusal of a wide head.

    Raises:
        Mismatch: A difference arose inside; a Raised where the candidate raised, if not `plain`.
    """
    try:
        yield
    except Mismatch as error:
        kind = Raised if isinstance(error, Raised) and not plain else Mismatch
        raise kind(f"{what}{separator}{error}", ratio=error.ratio, where=where or error.where) from None
