"""Whose code runs, and whose an exception is: the reference's, the candidate's, or equivcheck's.

Code of the pair runs inside `foreign`, at the few places where equivcheck calls it: what is raised there is marked. Where an
exception has no mark, a frame of the pair's code in its traceback tells the same. What has neither was raised by equivcheck.
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
from equivcheck.runtime import beacon
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
_PAIR = (  # code of equivcheck that is judged like anybody's
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
"""What a mistake in equivcheck's own code raises, and a call into torch hardly ever does."""

_sides: list[str] = [REFERENCE]


def current_side() -> str:
    """Whose code is run now: what is not run as the candidate's is the reference's."""
    return _sides[-1]


@contextmanager
def running(side: str) -> Iterator[None]:
    """Inside, code of the pair that does not say whose it is counts as this side's."""
    _enter(side)
    try:
        yield
    finally:
        _leave()


@contextmanager
def foreign(side: str | None = None) -> Iterator[None]:
    """Inside, code of the pair runs: an exception that leaves is marked as this side's, by default as the current one's.

    A mistake in equivcheck's own frames is not marked: a side's code is often called through an adapter.
    """
    if side is not None:
        _enter(side)
    try:
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
    """Inside, the original runs as equivcheck wants it, in float64 or with errors added: what kills the process is equivcheck's."""
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
    """The side whose code raised an exception: by its mark, else by its frames; None where equivcheck raised it."""
    marked: str | None = getattr(error, _MARK, None)
    if marked is not None:
        return marked
    return _sides[-1] if any(_is_foreign(file) for file in _files(error.__traceback__)) else None


def failure(action: Callable[[], object], side: str = REFERENCE) -> Exception | None:
    """What a side raises in `action`, or None where it runs; a ToolError where it was equivcheck that raised."""
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
    """Return where code of the pair raised this; else raise a ToolError, which is no outcome of the pair."""
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
        except AttributeError:  # a class of errors with slots: its frames tell
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
    if file.startswith("<"):  # made by exec, as dataclasses do: whose it was is not known
        return False
    in_torch, *standard = (file.startswith(place) for place in _LIBRARIES)
    return not in_torch and (file.startswith(_SITE) or not any(standard))
