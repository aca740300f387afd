"""Devices: a row for each type, the one that a user asks for, its name, and whether it still answers.

After an illegal access all calls of a process fail, those of right kernels too. Torch is loaded where a device is used: the
command line has its help from here.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from equivcheck.errors import DeviceLost, UsageError

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
    "type_of",
]

GPU = "cuda"
"""The type of device that the options `--gpu` stand for."""


@dataclass(frozen=True, kw_only=True)
class DeviceType:
    """One type of device, and how the package asks for it, waits for it and counts its memory; as it stands here, a CPU.

    Attributes:
        name: As torch names it.
        title: Its name in messages.
        accelerator: Whether it works beside the host and does much more in the same time: it is waited for, it has more cases,
            longer sequences and larger benchmarks, and a process can lose it.
        own_generator: Whether random numbers on it come from a generator of its own.
        counts_memory: Whether it says how much memory is in use.
        events: Whether torch's module of it has events with times, and `_sleep`, so that its time alone can be measured.
        autocast: Whether torch has autocast for it.
        blocking: What is set in the environment so that a failing kernel is named.
    """

    name: str
    title: str
    accelerator: bool = False
    own_generator: bool = False
    counts_memory: bool = False
    events: bool = False
    autocast: bool = True
    blocking: str = ""

    @property
    def module(self) -> Any:
        """Torch's module of this type, such as `torch.cuda`; None where it has none."""
        import torch

        return getattr(torch, self.name, None)

    @property
    def asked_for(self) -> tuple[str, ...]:
        """How a user may ask for it."""
        return (self.name,)

    def count(self) -> int:
        """How many of them torch sees."""
        return 1

    def found(self, device: "torch.device", asked: str) -> "torch.device":
        """The device of this type that was `asked` for; a UsageError where it is not there."""
        return device

    def device_name(self, device: "torch.device") -> str:
        """The device as reports name it."""
        return str(device)

    def environment(self, device: "torch.device") -> dict[str, str]:
        """What a verdict may depend on that is known of the device."""
        return {}

    def synchronize(self, device: "torch.device") -> None:
        """Return when it has done all that it was given."""

    def seed(self, device: "torch.device", seed: int) -> None:
        """Start the generator of its own, where it has one."""

    def generator_state(self, device: "torch.device") -> "Tensor":
        """The state of the generator that random operations on it draw from."""
        import torch

        return torch.get_rng_state()

    def set_generator_state(self, device: "torch.device", state: "Tensor") -> None:
        """Set what `generator_state` gave."""
        import torch

        torch.set_rng_state(state)

    def free_bytes(self, device: "torch.device") -> int | None:
        """How much memory is free; None where what runs on it shares the host's."""
        return None

    def allocated_bytes(self, device: "torch.device") -> int:
        """How much memory tensors have now, where it counts that."""
        return 0

    def reset_peak(self, device: "torch.device") -> None:
        """Count the peak of memory from here on."""

    def peak_bytes(self, device: "torch.device") -> int:
        """The most memory that tensors had since `reset_peak`, where it counts that."""
        return 0

    def empty_cache(self) -> None:
        """Give back memory that no tensor has."""

    def cache_bytes(self, device: "torch.device") -> int:
        """The size of its L2 cache; 0 where that is not known."""
        return 0


@dataclass(frozen=True, kw_only=True)
class Accelerator(DeviceType):
    """A type of device whose module in torch has the functions of `torch.cuda`, by the same names."""

    accelerator: bool = True
    own_generator: bool = True
    counts_memory: bool = True

    @property
    def asked_for(self) -> tuple[str, ...]:
        return self.name, f"{self.name}:N"

    def count(self) -> int:
        module = self.module
        return int(module.device_count()) if module is not None and module.is_available() else 0

    def found(self, device: "torch.device", asked: str) -> "torch.device":
        import torch

        count = self.count()
        if count == 0:
            raise UsageError(
                f"device {asked!r} was asked for and torch {torch.__version__} sees no {self.title} GPU: use --device cpu"
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
        Accelerator(name="cuda", title="CUDA", events=True, blocking="CUDA_LAUNCH_BLOCKING=1"),
    )
}
"""The types of devices that a pair can be judged on; `auto` is the first accelerator here that is there."""


def type_of(device: "torch.device") -> DeviceType:
    """The row of a device; one of no row is taken for a CPU."""
    return DEVICE_TYPES.get(device.type, _CPU)


def allowed(word: str) -> str:
    """How a device can be asked for, with a `word` before the last way."""
    *ways, last = ("auto", *(way for row in DEVICE_TYPES.values() for way in row.asked_for))
    return f"{', '.join(ways)} {word} {last}"


def ensure_device_alive(device: "torch.device", doing: str, error: Exception | None = None) -> None:
    """Return where `device` answers after what was `doing`, and after `error` if it raised; DeviceLost where it does not."""
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
            f"{device} is lost to this process, at the latest while {doing}: {type(first).__name__}: {cause}; nothing more can "
            f"be judged in it, and `{replay}` on this case tells which kernel it was"
        ) from first


def find_device(device: str) -> "torch.device":
    """The device to run on: `auto` is the current accelerator where there is one; a UsageError where the device is missing."""
    import torch

    if device == "auto":
        there = (row for row in DEVICE_TYPES.values() if row.accelerator and row.count())
        return next((row.found(torch.device(row.name), device) for row in there), torch.device("cpu"))
    try:
        named = torch.device(device)
    except RuntimeError:
        named = None
    if named is None or named.type not in DEVICE_TYPES:
        raise UsageError(f"unknown device {device!r}: allowed are {allowed('and')}")
    return DEVICE_TYPES[named.type].found(named, device)


def device_name(device: "torch.device") -> str:
    """The device, on an accelerator with the name of its model."""
    return type_of(device).device_name(device)
