"""The ways in which a mask is edited after an attention was built."""

import torch

from equivcheck.attention import CausalSelfAttention


def no_keys(module: CausalSelfAttention) -> None:
    module.mask[..., 2, :] = 0


def other_values(module: CausalSelfAttention) -> None:
    module.mask.mul_(-2.5)


def per_head(module: CausalSelfAttention) -> None:
    module.mask = (torch.arange(128).view(1, 2, 8, 8) % 3).clamp(0, 1).bool() | torch.eye(8, dtype=torch.bool)


def assigned(module: CausalSelfAttention) -> None:
    module.mask = torch.ones(1, 1, 8, 8, dtype=torch.float64)


def registered_anew(module: CausalSelfAttention) -> None:
    del module.mask
    module.register_buffer("mask", torch.ones(1, 1, 8, 8, dtype=torch.float64))


def filled(module: CausalSelfAttention) -> None:
    module.mask.fill_(1)


def data_assigned(module: CausalSelfAttention) -> None:
    module.mask.data = torch.ones(1, 1, 8, 8)


def loaded(module: CausalSelfAttention) -> None:
    module.load_state_dict(module.state_dict() | {"mask": torch.ones(1, 1, 8, 8)})


def loaded_by_assignment(module: CausalSelfAttention) -> None:
    module.load_state_dict(module.state_dict() | {"mask": torch.ones(1, 1, 8, 8, dtype=torch.float64)}, assign=True)


def emptied(module: CausalSelfAttention) -> None:
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.to("meta").to_empty(device="cpu").load_state_dict(state | {"mask": torch.ones(1, 1, 8, 8)})


def narrower(module: CausalSelfAttention) -> None:
    module.mask.fill_(1)
    module.bfloat16().double()


EDITS = [
    no_keys,
    other_values,
    per_head,
    assigned,
    registered_anew,
    filled,
    data_assigned,
    loaded,
    loaded_by_assignment,
    emptied,
    narrower,
]
