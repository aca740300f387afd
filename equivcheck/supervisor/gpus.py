"""Which GPU each process of a run takes, where a machine has several: they are shared out, and each process sees one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Gpus", "gpus_from"]


@dataclass(frozen=True)
class Gpus:
    """The GPUs of a run.

    Attributes:
        variable: The environment variable that says which GPUs a process sees; empty if all processes see all.
        words: Its value for each GPU; the first is the one of the first process, which sees all of them.
    """

    variable: str = ""
    words: Sequence[str] = ()

    def least_used(self, used: Iterable[str]) -> str:
        """The word of the GPU that the fewest processes have, and of several the first; empty if nothing is shared out.

        Args:
            used: The word of each process that runs.
        """
        taken = list(used)
        return min(self.words, key=taken.count, default="")

    def environment(self, word: str) -> dict[str, str]:
        """What a process that takes this GPU has in its environment."""
        return {self.variable: word} if word else {}


def gpus_from(devices: Mapping[str, Any], asked: str, environment: Mapping[str, str]) -> Gpus:
    """The GPUs that the processes of a run share out: none if the user has named one, or if there is one.

    Args:
        devices: The answer to the question `devices`.
        asked: The word for the device.
        environment: The environment of the caller, which may leave out some GPUs.
    """
    alike, variable = [int(number) for number in devices.get("alike", ())], str(devices.get("visible", ""))
    if ":" in asked or len(alike) < 2 or alike[0] != 0 or not variable:
        return Gpus()
    present = [word.strip() for word in environment.get(variable, "").split(",") if word.strip()]
    if present and alike[-1] >= len(present):  # torch sees others: the variable does not mean what it seems to
        return Gpus()
    return Gpus(variable, [present[number] if present else str(number) for number in alike])
