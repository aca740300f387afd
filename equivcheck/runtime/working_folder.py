"""The working folder of the process: code under test may change it, or remove it, and a run goes on all the same."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["current", "preserved"]


def current() -> Path:
    """The working folder; the root of the file system where the folder was removed."""
    try:
        return Path.cwd()
    except OSError:
        return Path(os.sep)


@contextmanager
def preserved() -> Iterator[None]:
    """Afterwards the working folder is what it was, where that still exists."""
    before = current()
    try:
        yield
    finally:
        with suppress(OSError):
            os.chdir(before)
