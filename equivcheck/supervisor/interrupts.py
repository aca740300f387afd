"""How a run is interrupted: a signal raises a flag, and the run checks the flag wherever it can end."""

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any

__all__ = ["Flag", "Interrupted", "listening"]


class Interrupted(BaseException):
    """Ends the run: it was interrupted, or its time is over."""


class Flag:
    """Whether the run shall end: Ctrl-C and SIGTERM set it, so that no callback can swallow them."""

    def __init__(self, signals: Sequence[signal.Signals] = (), around: "Flag | None" = None) -> None:
        """Lower it.

        Args:
            signals: The signals that raise it.
            around: A flag that goes up with this one: that of several runs, of which this one is the present run's.
        """
        self.up, self.signals, self._around = False, tuple(signals), around

    def raise_it(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.up = True
        if self._around is not None:
            self._around.raise_it(number, frame)


@contextmanager
def listening(*signals: signal.Signals) -> Iterator[Flag]:
    """While active, these signals raise the flag, if this is the main thread."""
    before = {number: signal.getsignal(number) for number in signals}
    flag = Flag(signals, next((flag for handler in before.values() if (flag := _of(handler)) is not None), None))
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    taken = {
        number: handler
        for number, handler in before.items()
        if number != signal.SIGINT or handler is signal.default_int_handler or _of(handler) is not None
    }
    for number in taken:
        signal.signal(number, flag.raise_it)
    try:
        yield flag
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)


def _of(handler: Any) -> Flag | None:
    """The flag that a handler of a signal raises, if it is one."""
    flag = getattr(handler, "__self__", None)
    return flag if isinstance(flag, Flag) else None
