"""The generators of random numbers: seeded for a while, read, and restored."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from equivcheck.runtime.device import type_of

__all__ = ["generator_state", "generators_kept", "seeded", "set_generator_state"]


def generators_kept(device: torch.device) -> AbstractContextManager[None]:
    """Restore the generators of the CPU and of `device` at the end."""
    if type_of(device).separate_generator:
        return torch.random.fork_rng(devices=[device], device_type=device.type)
    return torch.random.fork_rng(devices=[])


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, the generators of the CPU and of `device` start from `seed`; at the end they are restored."""
    with generators_kept(device):
        # torch.manual_seed would format and store a stack trace at every call while CUDA is not initialised
        torch.default_generator.manual_seed(seed)
        type_of(device).seed(device, seed)
        yield


def generator_state(device: torch.device) -> Tensor:
    """The state of the generator that random operations on `device` draw from."""
    return type_of(device).generator_state(device)


def set_generator_state(device: torch.device, state: Tensor) -> None:
    """Restore a state that `generator_state` returned."""
    type_of(device).set_generator_state(device, state)
