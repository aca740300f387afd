"""The process that the others of a run are forked from: it is started first, and imports torch while this one still does.

A crew of processes each of which imports torch by itself takes seconds to start, and they hinder each other at it.
"""

import multiprocessing
import sys
from multiprocessing import forkserver
from typing import Protocol

from equivcheck import working_folder

__all__ = ["METHOD", "Inherited", "inherited", "start"]


class Inherited(Protocol):
    """What a process takes from the one that starts it."""

    def take(self) -> None:
        """Is called in the process that was started, before anything else; the object was pickled for it."""


inherited: list[Inherited] = []
"""What every process of a run takes from this one."""

METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
"""How a process starts that has seen nothing of this one: a fork of one that has used CUDA, or threads, cannot."""


def start() -> None:
    """Start it, where the system has such a thing; returns at once. It ends with this process."""
    if METHOD == "forkserver" and sys.platform != "win32":
        # CUDA must stay untouched in it: nothing in equivcheck looks for a device when it is imported
        multiprocessing.set_forkserver_preload(["equivcheck.crew"])
        with working_folder.elsewhere():  # it asks where it is, and the folder may have been removed
            forkserver.ensure_running()
