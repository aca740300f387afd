"""Devices: a row for each type, the device that a user asks for, its name, and whether it still answers.

After an illegal access all calls of a process fail, those of right kernels too. Functions import torch when they need
it, because the help of the command line comes from here.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from equivcheck.errors import DeviceLost, UsageError
from equivcheck.runtime.nearest_name import did_you_mean

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = [
    "DEVICE_TYPES",
    "GPU",
    "DeviceType",
    "allowed",
    "device_name",
    "ensure_device_alive",
    "find_device",
    "refuse_unknown_device",
    "type_of",
]

GPU = "cuda"
"""The type of device that the option `--gpu` stands for."""


@dataclass(frozen=True, kw_only=True)
class DeviceType:
    """One type of device, and how the package waits for it and counts its memory; the methods here are those of a CPU.

    Attributes:
        name: torch's name for it.
        title: Its name in messages.
        accelerator: Whether it runs asynchronously beside the host and is much faster: then it is waited for, it gets
            more cases, longer sequences and larger benchmarks, and a process can lose it.
        separate_generator: Whether random numbers on it come from another generator than the CPU's.
        counts_memory: Whether it reports how much memory is in use.
        events: Whether torch's module for it has events with times, and `_sleep`, to measure the time of the device
            alone.
        autocast: Whether torch has autocast for it.
        blocking: The setting in the environment that makes torch name a failing kernel.
        visible: The variable of the environment that says which of them a process sees; empty if there is none.
    """

    name: str
    title: str
    accelerator: bool = False
    separate_generator: bool = False
    counts_memory: bool = False
    events: bool = False
    autocast: bool = True
    blocking: str = ""
    visible: str = ""

    @property
    def module(self) -> Any:
        """torch's module for this type, such as `torch.cuda`; None if there is none."""
        import torch

        return getattr(torch, self.name, None)

    @property
    def asked_for(self) -> tuple[str, ...]:
        """The words with which a user can ask for it."""
        return (self.name,)

    def count(self) -> int:
        """The number of such devices that torch sees."""
        return 1

    def resolve(self, device: "torch.device", asked: str) -> "torch.device":
        """The device with its index; a UsageError with the user's word `asked` if it does not exist."""
        return device

    def device_name(self, device: "torch.device") -> str:
        """The name of the device in reports."""
        return str(device)

    def environment(self, device: "torch.device") -> dict[str, str]:
        """The facts about the device that a verdict may depend on."""
        return {}

    def alike(self, device: "torch.device") -> list[int]:
        """The indices of this device and of all others of the same model, in order; empty if there is no other."""
        return []

    def synchronize(self, device: "torch.device") -> None:
        """Wait until the device has finished all its work."""

    def seed(self, device: "torch.device", seed: int) -> None:
        """Seed the generator of the device, if it has one."""

    def generator_state(self, device: "torch.device") -> "Tensor":
        """The state of the generator that random operations on it draw from."""
        import torch

        return torch.get_rng_state()

    def set_generator_state(self, device: "torch.device", state: "Tensor") -> None:
        """Restore a state that `generator_state` returned."""
        import torch

        torch.set_rng_state(state)

    def free_bytes(self, device: "torch.device") -> int | None:
        """The free memory; None if the device shares the host's."""
        return None

    def allocated_bytes(self, device: "torch.device") -> int:
        """The memory of all tensors now; 0 if the device does not count it."""
        return 0

    def reset_peak(self, device: "torch.device") -> None:
        """Start a new count of the peak of memory."""

    def peak_bytes(self, device: "torch.device") -> int:
        """The peak of the memory of all tensors since `reset_peak`; 0 if the device does not count it."""
        return 0

    def empty_cache(self) -> None:
        """Release cached memory that no tensor uses."""

    def cache_bytes(self, device: "torch.device") -> int:
        """The size of the L2 cache; 0 if it is unknown."""
        return 0


@dataclass(frozen=True, kw_only=True)
class Accelerator(DeviceType):
    """A type of device whose module in torch has the functions of `torch.cuda`, under the same names."""

    accelerator: bool = True
    separate_generator: bool = True
    counts_memory: bool = True

    @property
    def asked_for(self) -> tuple[str, ...]:
        return self.name, f"{self.name}:N"

    def count(self) -> int:
        module = self.module
        return int(module.device_count()) if module is not None and module.is_available() else 0

    def resolve(self, device: "torch.device", asked: str) -> "torch.device":
        import torch

        count = self.count()
        if count == 0:
            raise UsageError(
                f"device {asked!r} was asked for and torch {torch.__version__} sees no {self.title} GPU: "
                "use --device cpu"
            )
        index = self.module.current_device() if device.index is None else device.index
        if index >= count:
            raise UsageError(
                f"device {asked!r} was asked for and torch sees {count} {self.title} GPU(s): "
                f"use {self.name}:0 to {self.name}:{count - 1}"
            )
        return torch.device(self.name, index)

    def device_name(self, device: "torch.device") -> str:
        return f"{device} ({self.module.get_device_name(device)})"

    def environment(self, device: "torch.device") -> dict[str, str]:
        import torch

        return {
            "gpu": self.module.get_device_name(device),
            self.name: str(getattr(torch.version, self.name, None)),
        }

    def alike(self, device: "torch.device") -> list[int]:
        name = self.module.get_device_name(device)
        same = [index for index in range(self.count()) if self.module.get_device_name(index) == name]
        return same if len(same) > 1 else []

    def synchronize(self, device: "torch.device") -> None:
        self.module.synchronize(device)

    def seed(self, device: "torch.device", seed: int) -> None:
        with self.module.device(device):
            self.module.manual_seed(seed)

    def generator_state(self, device: "torch.device") -> "Tensor":
        state: Tensor = self.module.get_rng_state(device)
        return state

    def set_generator_state(self, device: "torch.device", state: "Tensor") -> None:
        self.module.set_rng_state(state, device)

    def free_bytes(self, device: "torch.device") -> int | None:
        return int(self.module.mem_get_info(device)[0])

    def allocated_bytes(self, device: "torch.device") -> int:
        return int(self.module.memory_allocated(device))

    def reset_peak(self, device: "torch.device") -> None:
        self.module.reset_peak_memory_stats(device)

    def peak_bytes(self, device: "torch.device") -> int:
        return int(self.module.max_memory_allocated(device))

    def empty_cache(self) -> None:
        self.module.empty_cache()

    def cache_bytes(self, device: "torch.device") -> int:
        return int(getattr(self.module.get_device_properties(device), "L2_cache_size", 0))


_CPU = DeviceType(name="cpu", title="the CPU")

DEVICE_TYPES: dict[str, DeviceType] = {
    row.name: row
    for row in (
        _CPU,
        Accelerator(
            name="cuda",
            title="CUDA",
            events=True,
            blocking="CUDA_LAUNCH_BLOCKING=1",
            visible="CUDA_VISIBLE_DEVICES",
        ),
    )
}
"""The types of devices that a pair can be judged on; `auto` is the first accelerator here that exists."""


def type_of(device: "torch.device") -> DeviceType:
    """The row of a device; that of a CPU if the type has no row."""
    return DEVICE_TYPES.get(device.type, _CPU)


def allowed(word: str) -> str:
    """The words with which a device can be asked for, in a list with `word` before the last, such as "or"."""
    *ways, last = ("auto", *(way for row in DEVICE_TYPES.values() for way in row.asked_for))
    return f"{', '.join(ways)} {word} {last}"


def ensure_device_alive(device: "torch.device", doing: str, error: Exception | None = None, *, side: str = "") -> None:
    """Return if the device still answers after a step of foreign code.

    Args:
        device: The device.
        doing: The step, in words that follow "while".
        error: The error that the step raised, if any.
        side: The side whose code it was, if it was one's: before it the device answered.

    Raises:
        DeviceLost: The device does not answer.
    """
    row = type_of(device)
    if not row.accelerator or not (error is None or isinstance(error, RuntimeError)):
        return
    import torch

    replay = f"{row.blocking} equivcheck replay".strip()
    try:
        torch.zeros((), device=device).item()
    except RuntimeError as raised:
        first = error or raised
        cause = next((line.strip() for line in str(first).splitlines() if line.strip()), "")
        raise DeviceLost(
            f"{device} is lost to this process, at the latest while {doing}: {type(first).__name__}: {cause}; "
            f"nothing more can be judged in it, and `{replay}` on this case tells which kernel it was",
            side,
        ) from first


def refuse_unknown_device(device: str) -> None:
    """Make sure that a word names a type of device, whether or not there is such a device; torch is not imported.

    Raises:
        UsageError: It names none.
    """
    name, colon, index = device.partition(":")
    if device != "auto" and (name not in DEVICE_TYPES or (colon and not index.isdecimal())):
        word = GPU if name.lower() == "gpu" else name  # which is spelt more like cpu
        meant = "" if name in DEVICE_TYPES else did_you_mean(word, ("auto", *DEVICE_TYPES))
        raise UsageError(f"unknown device {device!r}: allowed are {allowed('and')}{meant}")


def find_device(device: str) -> "torch.device":
    """The device to run on.

    Args:
        device: One of the words of `allowed`; `auto` is the current accelerator, or the CPU if there is none.

    Raises:
        UsageError: The word is unknown, or the device does not exist.
    """
    refuse_unknown_device(device)
    import torch

    if device == "auto":
        present = (row for row in DEVICE_TYPES.values() if row.accelerator and row.count())
        return next((row.resolve(torch.device(row.name), device) for row in present), torch.device("cpu"))
    try:
        named = torch.device(device)
    except RuntimeError:  # an index such as 01
        raise UsageError(f"unknown device {device!r}: allowed are {allowed('and')}") from None
    return DEVICE_TYPES[named.type].resolve(named, device)


def device_name(device: "torch.device") -> str:
    """The device, with the name of its model if it is an accelerator."""
    return type_of(device).device_name(device)
