"""The side whose code runs, and the side that raised an exception: the reference, the candidate, or equivcheck.

equivcheck calls code of the pair inside `foreign`, which marks exceptions. An exception without a mark belongs to the
pair if its traceback has a frame of the pair's code, else to equivcheck.
"""

import sysconfig
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import torch

from equivcheck.errors import Mismatch, ReferenceRaises, ToolError
from equivcheck.pairs.loading import line_of
from equivcheck.runtime import beacon, clock
from equivcheck.runtime.exits import as_error

__all__ = [
    "CANDIDATE",
    "REFERENCE",
    "current_side",
    "ensure_foreign",
    "failure",
    "finding_truth",
    "foreign",
    "place_of",
    "raised_by",
    "running",
]

REFERENCE, CANDIDATE = "reference", "candidate"

_MARK = "_equivcheck_side"
_PACKAGE = Path(__file__).parents[1]
_PAIR = (  # code of equivcheck that is judged as code of a pair
    "adapters",
    "attention.py",
    "faults",
    "flash",
    "gpt.py",
)
_JUDGED = tuple(str(_PACKAGE / name) for name in _PAIR)
_LIBRARIES = tuple(
    str(Path(place))
    for place in (Path(torch.__file__).parent, sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
)
_SITE = tuple(f"{Path(place)}" for place in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
_SLIPS = (AttributeError, NameError, KeyError, ZeroDivisionError, AssertionError, ImportError)
"""Exceptions that come from mistakes in equivcheck's code, and rarely from a call into torch."""

_sides: list[str] = [REFERENCE]


def current_side() -> str:
    """The side whose code runs now; the reference unless the candidate was entered."""
    return _sides[-1]


@contextmanager
def running(side: str) -> Iterator[None]:
    """Inside, code of the pair counts as this side's unless `foreign` names another side."""
    _enter(side)
    try:
        yield
    finally:
        _leave()


@contextmanager
def foreign(side: str | None = None) -> Iterator[None]:
    """Inside, code of the pair runs: an exception that leaves is marked with `side`, by default the current side.

    A mistake in a frame of equivcheck is not marked: code of a side is often called through an adapter.
    """
    if side is not None:
        _enter(side)
    try:
        with clock.in_part(_sides[-1]):
            yield
    except BaseException as raised:
        error = as_error(raised)
        if error is None:
            raise
        if not (isinstance(error, _SLIPS) and _is_judging(_last_file(error.__traceback__))):
            _mark(error, _sides[-1])
        if error is raised:
            raise
        raise error from raised
    finally:
        if side is not None:
            _leave()


@contextmanager
def finding_truth(step: str) -> Iterator[None]:
    """Inside, the original runs in float64 or with errors added: if the process dies here, equivcheck is the cause."""
    beacon.note_step(step)
    try:
        yield
    finally:
        beacon.note_step(beacon.NOTHING)


def _enter(side: str) -> None:
    _sides.append(side)
    beacon.note_side(side)


def _leave() -> None:
    beacon.left()
    _sides.pop()
    beacon.note_side(_sides[-1])


def raised_by(error: BaseException) -> str | None:
    """The side whose code raised an exception, by its mark or else by its frames; None if equivcheck raised it."""
    marked: str | None = getattr(error, _MARK, None)
    if marked is not None:
        return marked
    return _sides[-1] if any(_is_foreign(file) for file in _files(error.__traceback__)) else None


def failure(action: Callable[[], object], side: str = REFERENCE) -> Exception | None:
    """The exception that a side raises in `action`, or None.

    Args:
        action: Runs code of the side.
        side: The side, `REFERENCE` or `CANDIDATE`.

    Raises:
        ToolError: equivcheck raised the exception.
        Mismatch: `action` raised one, which is a result of a comparison.
    """
    try:
        with running(side):
            action()
    except (ToolError, Mismatch):
        raise
    except ReferenceRaises as error:
        return error
    except Exception as error:
        with running(side):
            ensure_foreign(error)
        return error
    return None


def ensure_foreign(error: Exception) -> None:
    """Return if code of the pair raised this; else raise a ToolError, which is no outcome of the pair."""
    if isinstance(error, ToolError):
        raise error
    if isinstance(error, Mismatch):
        return
    if raised_by(error) is None:
        raise ToolError(f"{type(error).__name__}: {line_of(error)[:300]} ({place_of(error)})") from error


def place_of(error: BaseException) -> str:
    """The file and line of equivcheck that an exception came from."""
    last = "an unknown place"
    traceback = error.__traceback__
    while traceback is not None:
        file = traceback.tb_frame.f_code.co_filename
        if file.startswith(str(_PACKAGE)):
            last = f"{Path(file).relative_to(_PACKAGE.parent)}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return last


def _mark(error: BaseException, side: str) -> None:
    if getattr(error, _MARK, None) is None:
        try:
            setattr(error, _MARK, side)
        except AttributeError:  # a class of exceptions with slots: `raised_by` reads its frames
            return


def _files(traceback: TracebackType | None) -> Iterator[str]:
    while traceback is not None:
        yield traceback.tb_frame.f_code.co_filename
        traceback = traceback.tb_next


def _last_file(traceback: TracebackType | None) -> str:
    return next(iter(deque(_files(traceback), maxlen=1)), "")


def _is_judging(file: str) -> bool:
    return file.startswith(str(_PACKAGE)) and not file.startswith(_JUDGED)


def _is_foreign(file: str) -> bool:
    if file.startswith(str(_PACKAGE)):
        return file.startswith(_JUDGED)
    if file.startswith("<"):  # made by exec, as in dataclasses: the side is not known
        return False
    in_torch, *standard = (file.startswith(place) for place in _LIBRARIES)
    return not in_torch and (file.startswith(_SITE) or not any(standard))
