"""Code under test that raises what is no Exception, as sys.exit does: an error of its own like any other, not the run's end."""

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["as_error", "exits_as_errors", "interrupts_are_foreign"]

_foreign_interrupts = False


def interrupts_are_foreign() -> None:
    """From here on nobody interrupts this process from outside: a KeyboardInterrupt is raised by the code under test."""
    global _foreign_interrupts
    _foreign_interrupts = True


def as_error(error: BaseException) -> Exception | None:
    """A RuntimeError that says what was raised, where that is no Exception; None for a KeyboardInterrupt of the user."""
    if isinstance(error, Exception):
        return error
    if isinstance(error, KeyboardInterrupt) and not _foreign_interrupts:
        return None
    if isinstance(error, SystemExit):
        told = f"sys.exit({error.code!r}) was called"
    else:
        told = f"{type(error).__name__} was raised, which is no Exception: {error}".rstrip(": ")
    # with the frames of whoever raised it, which say whose it is
    return RuntimeError(told).with_traceback(error.__traceback__)


@contextmanager
def exits_as_errors() -> Iterator[None]:
    """Inside, what is no Exception is a RuntimeError that says so; a KeyboardInterrupt of the user stays what it is."""
    try:
        yield
    except Exception:
        raise
    except BaseException as error:
        raised = as_error(error)
        if raised is None:
            raise
        raise raised from error
