"""Attentions of other projects, small models to put them into, and ways to copy those."""

import abc
import copy
import io
import pickle
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.attention import (
    CausalSelfAttention,
)
from equivcheck.gpt import GPTConfig


def config(**changes: Any) -> GPTConfig:
    sizes = {"vocab_size": 11, "block_size": 8, "n_layer": 2, "n_head": 2, "n_embd": 8} | changes
    return GPTConfig(**sizes)


def ids(T: int = 6) -> Tensor:
    return torch.randint(11, (2, T), generator=torch.Generator().manual_seed(1))


class Windowed(CausalSelfAttention):
    """An attention that computes something else."""


class Foreign(nn.Module):
    """The attention of another project: the same attributes, a constructor, a method and a forward pass of its own."""

    def __init__(self, width: int, heads: int, longest: int = 8, *, rate: float = 0.0) -> None:
        super().__init__()
        self.query, self.key, self.value, self.proj = (nn.Linear(width, width) for _ in range(4))
        self.attn_drop, self.resid_drop = nn.Dropout(rate), nn.Dropout(rate)
        self.register_buffer("mask", torch.ones(longest, longest, dtype=torch.bool).tril()[None, None])
        self.heads = heads

    @property
    def n_head(self) -> int:
        return self.heads

    def head_size(self) -> int:
        return self.proj.in_features // self.heads

    def forward(self, x: Tensor) -> Tensor:
        B, T, _ = x.shape
        q, k, v = (f(x).view(B, T, self.heads, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        s = (q @ k.transpose(-2, -1)) * self.head_size() ** -0.5
        p = self.attn_drop(F.softmax(s.masked_fill(self.mask[:, :, :T, :T] == 0, -torch.inf), -1))
        return self.resid_drop(self.proj((p @ v).transpose(1, 2).flatten(2)))


class Slotted(Foreign):
    """Attributes in slots give the objects of a class a layout of their own."""

    __slots__ = ("extra",)


class Abstract(Foreign, abc.ABC):
    """A metaclass of its own."""


class Nameless(nn.Module):
    """An attention of other attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.c_attn, self.c_proj, self.n_head = nn.Linear(8, 24), nn.Linear(8, 8), 2


def foreign(kind: type[Foreign] = Foreign) -> nn.ModuleDict:
    torch.manual_seed(0)
    return nn.ModuleDict({"attn": kind(8, 2), "mlp": nn.Linear(8, 8)}).eval()


def attentions(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, CausalSelfAttention)]


def through_pickle(model: nn.Module) -> nn.Module:
    return pickle.loads(pickle.dumps(model))


def through_a_file(model: nn.Module) -> nn.Module:
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = [copy.deepcopy, copy.copy, through_pickle, through_a_file]
