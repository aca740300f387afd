"""The place of a file that a user asked for: it is fixed before code under test can change folders and streams."""

import os
import re
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from equivcheck.errors import UsageError
from equivcheck.report import streams
from equivcheck.report.files import probe_file, probe_folder, write_whole
from equivcheck.report.text_stream import Stream, put

__all__ = ["Place", "absolute", "place_of", "refusal"]

_DESCRIPTOR = re.compile(rf"/(?:dev|proc/(?:self|thread-self|{os.getpid()}))/fd/(\d+)")
_NAMES = {"-": 1, "/dev/stdout": 1, "/dev/stderr": 2}
_MOST_LINKS = 40


@dataclass(frozen=True)
class Place:
    """A place: the user's name for it, and the absolute path or the open stream that the name stood for."""

    option: str
    given: Path
    path: Path
    stream: TextIO | None = None

    @property
    def key(self) -> object:
        """Equal for two places that are the same."""
        return self.path.resolve() if self.stream is None else id(self.stream)

    @property
    def is_file(self) -> bool:
        """Whether it is, or can become, a file that can be replaced: no stream, no pipe and no device."""
        return self.stream is None and (self.path.is_file() or not self.path.exists())

    def probe(self, *, folder: bool = False) -> "Place":
        """Return this place if it can be written to, else raise a UsageError; leave nothing behind."""
        try:
            if self.stream is not None:
                pass  # it is open: a failure shows when it is written
            elif folder:
                probe_folder(self.path)
            else:
                probe_file(self.path)
        except FileNotFoundError as error:
            missing = FileNotFoundError(error.errno, f"there is no folder {self.given.parent}")
            raise self.refusal(missing) from None
        except OSError as error:
            raise self.refusal(error) from None
        return self

    def write(self, text: str) -> None:
        """Write `text`, to a file whole or not at all, to a stream once; an OSError if that fails."""
        if self.stream is None:
            write_whole(self.path, text)
        else:
            put(self.stream, text)

    def save(self, text: str) -> None:
        """Write `text` as `write` does; a UsageError if that fails."""
        try:
            self.write(text)
        except OSError as error:
            raise self.refusal(error) from None

    def beside(self, name: str) -> "Place":
        """The file of this name in this place, which is a folder."""
        return Place(self.option, self.given / name, self.path / name)

    def refusal(self, error: OSError) -> UsageError:
        """The UsageError for a failure to write to this place."""
        return refusal(self.option, self.given, error)


def place_of(option: str, given: Path, *, folder: bool = False, alone: bool = True) -> Place:
    """The place that `given` stands for now; if that is a stream of the tool, it is reserved for the place.

    Args:
        option: The option, with which an error message begins.
        given: A path, or `-` for standard output.
        folder: The place is a folder, and no stream.
        alone: No other text may be written to the same stream.

    Raises:
        UsageError: It cannot be written to, as far as can be known without a trial.
    """
    try:
        path = absolute(given)
        stream = None if folder else _stream_of(path if str(given) != "-" else given)
    except OSError as error:
        raise refusal(option, given, error) from None
    if stream is not None and alone:
        streams.current().reserve(stream)
    return Place(option, given, path, stream)


def absolute(given: Path) -> Path:
    """The absolute path, from the current working folder; an OSError if that was removed."""
    return given if given.is_absolute() else Path.cwd() / given


def refusal(option: str, given: Path, error: OSError) -> UsageError:
    """The UsageError for a place that cannot be written to."""
    reason = error.strerror or error
    return UsageError(f"{option} {given}: cannot be written ({reason}); give a place that can be written to")


def _stream_of(path: Path) -> TextIO | None:
    """The open stream that `path` names, or that writes to the file `path`; None for any other path."""
    both = streams.current()
    number = _number(str(path))
    if number is not None:
        if number in (1, 2):
            return both.out if number == 1 else both.err
        return Stream(os.dup(number), f"descriptor {number}")
    with suppress(OSError, AttributeError):
        there = path.stat()
        if stat.S_ISREG(there.st_mode) or stat.S_ISFIFO(there.st_mode):
            for stream in (both.out, both.err):
                with suppress(OSError):
                    if os.path.samestat(there, os.fstat(stream.fileno())):
                        return stream
    return None


def _number(path: str) -> int | None:
    """The number of the descriptor that a path names, also through links; None for any other path."""
    for _ in range(_MOST_LINKS):
        if path in _NAMES:
            return _NAMES[path]
        if match := _DESCRIPTOR.fullmatch(path):
            return int(match[1])
        try:
            path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))
        except OSError:
            return None
    return None
