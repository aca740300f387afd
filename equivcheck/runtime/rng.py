"""The generators of random numbers: started from a seed for a while, read and put back."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import Tensor

from equivcheck.runtime.device import type_of

__all__ = ["generator_state", "generators_kept", "seeded", "set_generator_state"]


def generators_kept(device: torch.device) -> AbstractContextManager[None]:
    """Afterwards the generators of the CPU and of `device` are as they were."""
    if type_of(device).own_generator:
        return torch.random.fork_rng(devices=[device], device_type=device.type)
    return torch.random.fork_rng(devices=[])


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, the generators of the CPU and of `device` start from `seed`; afterwards they are as they were."""
    with generators_kept(device):
        # not torch.manual_seed: where CUDA is not initialised, it formats and keeps a stack trace at every call
        torch.default_generator.manual_seed(seed)
        type_of(device).seed(device, seed)
        yield


def generator_state(device: torch.device) -> Tensor:
    """The state of the generator that random operations on `device` draw from."""
    return type_of(device).generator_state(device)


def set_generator_state(device: torch.device, state: Tensor) -> None:
    """Set what `generator_state` gave."""
    type_of(device).set_generator_state(device, state)
