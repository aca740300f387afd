"""Code under test that calls sys.exit: an error of its own like any other, and not the end of the run."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["held_back"]


@contextmanager
def held_back() -> Iterator[None]:
    """Inside, SystemExit is a RuntimeError that says so; KeyboardInterrupt stays what it is."""
    try:
        yield
    except SystemExit as error:
        # with the frames of whoever called it, which say whose it is
        raise RuntimeError(f"sys.exit({error.code!r}) was called").with_traceback(error.__traceback__) from error
