"""How a run is interrupted: a signal raises a flag, and the run checks the flag wherever it can end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Flag", "Interrupted", "listening"]


class Interrupted(BaseException):
    """Ends the run: it was interrupted, or its time is over."""


class Flag:
    """Whether the run shall end: Ctrl-C and SIGTERM set it, so that no callback can swallow them."""

    def __init__(self) -> None:
        self.up = False

    def raise_it(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.up = True


@contextmanager
def listening(*signals: signal.Signals) -> Iterator[Flag]:
    """While active, these signals raise the flag, if this is the main thread."""
    flag = Flag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return
    before = {}
    for number in signals:
        if number != signal.SIGINT or signal.getsignal(number) is signal.default_int_handler:
            before[number] = signal.signal(number, flag.raise_it)
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
