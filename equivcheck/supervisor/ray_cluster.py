"""Commands of equivcheck as tasks of Ray, which chooses their nodes and starts them again if a node is lost."""

import importlib
import io
import json
import logging
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from typing import Any

from equivcheck.errors import UsageError
from equivcheck.report.clean_text import one_line
from equivcheck.supervisor.ray_shares import Share, resources, slots
from equivcheck.supervisor.ray_task import run_command, travels

__all__ = ["Cluster", "Ended", "connected"]

_STEP_S = 0.25
_CONNECT_S = 10.0
_LOOK_S = 2.0  # between two looks at the nodes
_PATIENCE_S = 60.0  # without a node that could run a task
_RETRIES = 3  # of one task, for lost nodes and workers
_MOST_LETTERS = 300  # of an error of Ray


@dataclass(frozen=True)
class Ended:
    """A command that has ended, or was lost.

    Attributes:
        number: Its place among the commands.
        out: Its standard output; empty if it wrote none.
        reason: The last line of its standard error, or why it was lost.
        host: The machine that it ran on; empty if it was lost.
    """

    number: int
    out: str = ""
    reason: str = ""
    host: str = ""


class Cluster:
    """A cluster that this process is connected to."""

    def __init__(self, ray: Any) -> None:
        """Take the module `ray`, which is connected."""
        self._ray = ray

    def nodes(self) -> list[Share]:
        """What each node that is alive has."""
        return resources(self._ray.nodes())

    def run(self, commands: Sequence[Sequence[str]], share: Share, stopping: Callable[[], bool]) -> Iterator[Ended]:
        """Run each command as a task in the present folder.

        Args:
            commands: The arguments of `equivcheck` for each.
            share: The resources of each task.
            stopping: A function that returns whether to end now: the tasks that are left are cancelled.

        Yields:
            Each command as soon as it has ended, or Ray has given it up.
        """
        caller = {name: value for name, value in os.environ.items() if travels(name)}
        task = self._ray.remote(
            num_cpus=share.cpus, num_gpus=share.gpus, max_retries=_RETRIES, scheduling_strategy="SPREAD"
        )(run_command)
        numbers = {
            task.remote(list(words), os.getcwd(), caller, share.cpus): number for number, words in enumerate(commands)
        }
        waiting, looked, fitted = list(numbers), time.monotonic(), time.monotonic()
        try:
            while waiting and not stopping():
                done, waiting = self._ray.wait(waiting, num_returns=1, timeout=_STEP_S)
                for one in done:
                    yield self._ended(numbers[one], one)
                now = time.monotonic()
                if now - looked > _LOOK_S:
                    looked = now
                    fitted = now if slots(self.nodes(), share) else fitted
                    if now - fitted > _PATIENCE_S:
                        break
            if not stopping():
                reason = f"no node of the cluster has {share.cpus} CPU and {share.gpus} GPU any more"
                yield from (Ended(numbers[one], reason=reason) for one in waiting)
        finally:
            for one in waiting:
                self._ray.cancel(one, force=True)

    def _ended(self, number: int, task: Any) -> Ended:
        try:
            answer = json.loads(self._ray.get(task))
        except Exception as error:  # of Ray: it was started again as often as it may be
            text = one_line(str(error))[:_MOST_LETTERS]
            return Ended(number, reason=f"Ray gave it up: {type(error).__name__}: {text}")
        return Ended(number, answer["out"], answer["reason"], answer["host"])


@contextmanager
def connected(address: str) -> Iterator[Cluster]:
    """Inside, this process is connected to a cluster; one that was started for it ends afterwards.

    Args:
        address: An address as `ray.init` takes it; if it is empty, Ray looks for a cluster, and starts one if it knows none.

    Raises:
        UsageError: Ray is not installed, or there is no such cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # equivcheck makes no request
    try:
        ray = importlib.import_module("ray")
    except ImportError:
        raise UsageError('--workers ray needs Ray: pip install "equivcheck[ray]"') from None
    option = f"--workers ray{':' if address else ''}{address}"
    try:
        _reach(address or os.environ.get("RAY_ADDRESS", ""))
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            ray.init(
                address=address or None, log_to_driver=False, logging_level=logging.CRITICAL, include_dashboard=False
            )
    except (OSError, OverflowError, RuntimeError, ValueError) as error:
        text = one_line(str(error))[:_MOST_LETTERS]
        raise UsageError(f"{option}: there is no connection to a cluster ({text}); give the address of one") from None
    try:
        yield Cluster(ray)
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """Fail at once where nobody listens: Ray tries again for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and "/" not in address and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
