"""Code under test that raises a BaseException, as sys.exit does: that is an error like any other, not the run's end."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["as_error", "exits_as_errors", "interrupts_are_foreign"]

_foreign_interrupts = False


def interrupts_are_foreign() -> None:
    """Declare that the user does not interrupt this process: a KeyboardInterrupt comes from the code under test."""
    global _foreign_interrupts
    _foreign_interrupts = True


def as_error(error: BaseException) -> Exception | None:
    """The error itself, or a RuntimeError that names it if it is no Exception; None for a user's KeyboardInterrupt."""
    if isinstance(error, Exception):
        return error
    if isinstance(error, KeyboardInterrupt) and not _foreign_interrupts:
        return None
    if isinstance(error, SystemExit):
        message = f"sys.exit({error.code!r}) was called"
    else:
        message = f"{type(error).__name__} was raised, which is no Exception: {error}".rstrip(": ")
    # with the frames of the code that raised it, which show whose code that is
    return RuntimeError(message).with_traceback(error.__traceback__)


@contextmanager
def exits_as_errors() -> Iterator[None]:
    """Inside, turn an error that is no Exception into a RuntimeError, except for a user's KeyboardInterrupt."""
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        raised = as_error(error)
        if raised is None:
            raise
        raise raised from error
