"""The working folder of the process, which code under test may change or remove without an end of the run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["current", "preserved"]


def current() -> Path:
    """The working folder; the root of the file system if the folder was removed."""
    try:
        return Path.cwd()
    except OSError:
        return Path(os.sep)


@contextmanager
def preserved() -> Iterator[None]:
    """Restore the working folder at the end, if it still exists."""
    before = current()
    try:
        yield
    finally:
        with suppress(OSError):
            os.chdir(before)
