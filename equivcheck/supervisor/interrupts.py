"""How a run is interrupted: a signal raises a flag, which the run looks at where it can end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Flag", "Interrupted", "listening"]


class Interrupted(BaseException):
    """The run is to end now: it was interrupted, or its time is over."""


class Flag:
    """Whether the run is to end: set by Ctrl-C and by SIGTERM, which so cannot be lost in a callback."""

    def __init__(self) -> None:
        self.up = False

    def raise_it(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal."""
        self.up = True


@contextmanager
def listening(*signals: signal.Signals) -> Iterator[Flag]:
    """Inside, these signals raise the flag, where this is the thread that gets them."""
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
