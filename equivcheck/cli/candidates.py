"""The candidates of a command line: import strings, files, folders of files, and lines on standard input."""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from equivcheck.errors import UsageError
from equivcheck.runtime.import_strings import refuse_misspelt
from equivcheck.runtime.obvious_callable import obvious_callable
from equivcheck.supervisor.candidates import Given

__all__ = ["STDIN", "candidates_of", "lines_of"]

STDIN = "-"
"""The word for candidates that stand on standard input, one a line."""


def candidates_of(words: Sequence[str], *, name: str | None, like: str, lines: Iterable[str]) -> Iterator[Given]:
    """The candidates in their order; one that names nothing for certain has a problem in the place of a run.

    Args:
        words: Import strings, files, folders, or `-`.
        name: The name of the candidate in each file and module that is given without one.
        like: The name of the original, which the candidate of a file may have, too.
        lines: The lines of standard input, which are read one by one.

    Raises:
        UsageError: A folder has no Python file.
    """
    for word in words:
        if word == STDIN:
            for line in lines:
                if (text := line.strip()) and not text.startswith("#"):
                    yield from _of_word(text, name, like)
        else:
            yield from _of_word(word, name, like)


def lines_of(stream: BinaryIO | None) -> Iterator[str]:
    """The lines of a stream as text, each as soon as it is there."""
    while stream is not None and (line := stream.readline()):
        yield line.decode("utf-8", "backslashreplace")


def _of_word(word: str, name: str | None, like: str) -> Iterator[Given]:
    path = Path(word).expanduser()
    try:
        is_folder = path.is_dir()
        files = sorted(file for file in path.glob("*.py") if not file.name.startswith("_")) if is_folder else [path]
    except (OSError, ValueError):
        is_folder, files = False, [path]
    if is_folder and not files:
        yield Given(word, problem=f"{word}: a folder without a Python file; give one with candidates")
        return
    for file in files:
        text = str(file) if is_folder else word
        try:
            yield Given(text, _import_string(text, name, like))
        except UsageError as error:
            yield Given(text, problem=str(error))


def _import_string(text: str, name: str | None, like: str) -> str:
    """The import string of a candidate; a UsageError if there is certainly no such candidate."""
    spec = text
    if text.endswith(".py"):
        if not Path(text).expanduser().is_file():
            raise UsageError(f"there is no file {text!r}: give a Python file")
        spec = f"{text}:{name or obvious_callable(Path(text).expanduser(), like)}"
    elif ":" not in text and name is not None:
        spec = f"{text}:{name}"
    refuse_misspelt(spec)
    return spec
