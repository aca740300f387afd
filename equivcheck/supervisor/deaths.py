"""How a process that ran a pair ended, in words, and whose code it ran."""

import signal
from dataclasses import dataclass

from equivcheck.runtime.beacon import Place
from equivcheck.supervisor.workers import Asked

__all__ = ["Death", "Lost", "confirmed", "death_of"]

_IN_FLOAT64 = ("the oracle", "a perturbed run")
_IMPORTING = "importing"


@dataclass(frozen=True)
class Death:
    """The end of a process.

    Attributes:
        how: `died`, `hang`, `memory`, `fork`, `lost` or `closed`.
        description: How it ended, as the end of a sentence: `died of SIGSEGV`.
        place: The step that it was in.
        outside: Whether it may have been ended from outside: by a SIGKILL that equivcheck has not sent.
    """

    how: str
    description: str
    place: Place
    outside: bool = False

    @property
    def side(self) -> str:
        """Whose code ran: `reference` or `candidate`; `""` in runs of the original that equivcheck modified."""
        return "" if self.place.step in _IN_FLOAT64 else self.place.side

    @property
    def importing(self) -> bool:
        """Whether a side was being imported."""
        return self.place.step == _IMPORTING


class Lost(Exception):
    """A process died of a question that is no case, and a second one did, too."""

    def __init__(self, first: Death, second: Death) -> None:
        super().__init__(second.description)
        self.death = second
        self.description = confirmed(first, second)


def confirmed(first: Death, second: Death) -> str:
    """A death that a fresh process confirmed, as the end of a sentence."""
    if second.how == "hang":
        return f"{second.description} in a fresh process (--case-seconds)"
    option = " (--worker-memory)" if first.how == "memory" else ""
    return f"{first.description}{option}, and again in a fresh process"


def death_of(asked: Asked) -> Death:
    """The death of the process that was asked this."""
    if asked.why == "closed" and asked.status == -signal.SIGKILL:
        return Death("closed", "closed the descriptors of its process", asked.place)
    if asked.why in ("hang", "memory", "lost", "fork"):
        return Death(asked.why, asked.description, asked.place)
    status = asked.status or 0
    if status == -signal.SIGKILL:
        return Death("died", "died of SIGKILL", asked.place, outside=True)
    if status < 0:
        try:
            name = signal.Signals(-status).name
        except ValueError:
            name = f"signal {-status}"
        return Death("died", f"died of {name}", asked.place)
    return Death("died", f"ended its process with status {status}, as os._exit does", asked.place)
