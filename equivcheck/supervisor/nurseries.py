"""The processes that workers are forked from, kept until this process ends, so that torch is imported once."""

import atexit
import os
from contextlib import suppress
from typing import Any

from equivcheck.errors import UsageError
from equivcheck.report import streams
from equivcheck.supervisor.nursery import Nursery

__all__ = ["INSIDE", "nursery", "start"]

INSIDE = "EQUIVCHECK_WORKER"
# torch reads variables with these prefixes when it is imported
_KEY = ("CUDA", "OMP", "MKL", "KMP", "TORCH", "PYTORCH", "PYTHON", "LD_", "OPENBLAS")

_nurseries: dict[Any, Nursery] = {}


def nursery() -> Nursery:
    """The process that workers are forked from: one for each way to import torch, kept until this process ends.

    Raises:
        UsageError: This is a worker itself.
    """
    if os.environ.get(INSIDE):
        raise UsageError("equivcheck was started by the code that it runs: remove that from it, or guard it")
    apart = not os.environ.get(streams.DEBUG)
    key = (os.getpid(), apart, tuple(sorted((k, v) for k, v in os.environ.items() if k.startswith(_KEY))))
    if key not in _nurseries or _nurseries[key].dead:
        for old in list(_nurseries):
            previous = _nurseries.pop(old)
            if old[0] == os.getpid():
                previous.close()
        _nurseries[key] = Nursery(streams=apart)
    return _nurseries[key]


def start() -> None:
    """Start the process early: it imports torch while the caller does other things."""
    with suppress(UsageError):
        nursery()


@atexit.register
def _end() -> None:
    for key, running in _nurseries.items():
        if key[0] == os.getpid():
            running.close()
    _nurseries.clear()
