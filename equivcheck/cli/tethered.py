"""`python -m equivcheck.cli.tethered` is the command `equivcheck` that ends with the process that started it.

Its standard input is a pipe that the other process holds open; the end of the pipe is the end of that process.
"""

import os
import signal
import sys
import threading

__all__ = ["tether"]


def tether() -> None:
    """End this process as soon as standard input ends; the command itself reads nothing from there.

    The processes that it has started end with it, as they do when a supervisor is killed.
    """
    pipe = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    threading.Thread(target=_wait, args=(pipe,), daemon=True).start()


def _wait(pipe: int) -> None:
    while os.read(pipe, 1):
        pass
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    tether()
    from equivcheck.cli.main import main

    sys.exit(main())
