"""The pair that ships: minGPT's causal self-attention and its fused drop-in.

`CausalSelfAttention` spells out softmax(q kᵀ / sqrt(D)) v; `FlashCausalSelfAttention` asks
`F.scaled_dot_product_attention` for the same thing and inherits all that is not the forward pass, so
that names, shapes and initial values cannot drift apart.
"""

import math
import warnings
from typing import Any, Protocol, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

__all__ = [
    "AttentionConfig",
    "CausalSelfAttention",
    "FlashCausalSelfAttention",
    "replace_attention_with_flash_attention",
]

M = TypeVar("M", bound=nn.Module)


class AttentionConfig(Protocol):
    """What an attention reads of a minGPT config; rates are probabilities in [0, 1]."""

    @property
    def n_embd(self) -> int: ...
    @property
    def n_head(self) -> int: ...
    @property
    def block_size(self) -> int: ...
    @property
    def attn_pdrop(self) -> float: ...
    @property
    def resid_pdrop(self) -> float: ...


class CausalSelfAttention(nn.Module):
    """Multi-head causal self-attention as minGPT trains it, with the probabilities kept after each forward.

    `forward(x: (B, T, C)) -> (B, T, C)` with T up to `block_size`; a longer sequence is a RuntimeError.
    """

    mask: Tensor
    attention_weights: Tensor | None

    def __init__(self, config: AttentionConfig) -> None:
        super().__init__()
        if config.n_embd % config.n_head != 0:
            raise ValueError(
                f"n_embd={config.n_embd} is not a multiple of n_head={config.n_head}: "
                "every head needs the same whole size; change one of the two"
            )
        self.key = nn.Linear(config.n_embd, config.n_embd)
        self.query = nn.Linear(config.n_embd, config.n_embd)
        self.value = nn.Linear(config.n_embd, config.n_embd)
        self.attn_drop = nn.Dropout(config.attn_pdrop)
        self.resid_drop = nn.Dropout(config.resid_pdrop)
        self.proj = nn.Linear(config.n_embd, config.n_embd)
        causal = torch.tril(torch.ones(config.block_size, config.block_size))
        # persistent: old checkpoints hold it, and strict loading must go on working
        self.register_buffer("mask", causal.view(1, 1, config.block_size, config.block_size))
        self.n_head = config.n_head
        self.attention_weights = None

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        B, T, C = x.shape
        shape = (B, T, self.n_head, C // self.n_head)
        q = self.query(x).view(shape).transpose(1, 2)  # (B, nh, T, hs)
        k = self.key(x).view(shape).transpose(1, 2)  # (B, nh, T, hs)
        v = self.value(x).view(shape).transpose(1, 2)  # (B, nh, T, hs)
        return q, k, v

    def _merge(self, y: Tensor) -> Tensor:
        B, nh, T, hs = y.shape
        y = y.transpose(1, 2).contiguous().view(B, T, nh * hs)  # (B, T, C)
        return self.resid_drop(self.proj(y))  # type: ignore[no-any-return]  # nn.Module calls are Any

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        T = x.size(1)
        q, k, v = self._heads(x)
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))  # (B, nh, T, T)
        att = att.masked_fill(self.mask[:, :, :T, :T] == 0, -float("inf"))
        att = F.softmax(att, dim=-1)
        att = self.attn_drop(att)
        self.attention_weights = att
        return self._merge(att @ v)


class FlashCausalSelfAttention(CausalSelfAttention):
    """The same function of the same weights through torch's fused kernels; `attention_weights` stays None.

    Obeys `attn_drop` and `resid_drop` as they are at each call, and refuses T past `block_size` as the original does.
    """

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        T, block_size = x.size(1), self.mask.size(-1)
        if block_size < T:
            # the kernel would run; the original cannot, and a drop-in must not hide the mistake
            raise RuntimeError(f"sequence of length T={T} is longer than block_size={block_size}: shorten the input")
        q, k, v = self._heads(x)
        rate = self.attn_drop.p if self.attn_drop.training else 0.0
        y = F.scaled_dot_product_attention(  # (B, nh, T, hs)
            q,
            k,
            v,
            attn_mask=None,
            dropout_p=rate if rate < 1.0 else 0.0,
            is_causal=True,
            scale=1.0 / math.sqrt(k.size(-1)),
        )
        if rate >= 1.0:
            y = F.dropout(y, rate)  # the flash kernel on CUDA refuses to drop everything
        self.attention_weights = None
        return self._merge(y)


def replace_attention_with_flash_attention(model: M, *, target: type[nn.Module] = CausalSelfAttention) -> M:
    """Make every `target` inside `model` a `FlashCausalSelfAttention`, in place, and return the model.

    The module objects stay the same ones: Parameters, buffers, submodules, hooks, modes, dtypes, devices and ties live on,
    and so does every optimizer built before. Subclasses of `target` are left alone and named in a warning.
    Raises ValueError where there is nothing to replace.
    """
    found = False
    left_alone: list[str] = []
    for name, module in model.named_modules():
        kind: type[Any] = type(module)
        if kind is FlashCausalSelfAttention:
            found = True
        elif kind is target:
            module.__class__ = FlashCausalSelfAttention
            module.attention_weights = None
            found = True
        elif issubclass(kind, target):
            left_alone.append(f"{name or 'the model itself'} ({kind.__qualname__})")
    if left_alone:
        warnings.warn(
            f"left alone, because they are subclasses of {target.__qualname__} and may compute something else: "
            + ", ".join(left_alone),
            stacklevel=2,
        )
    if not found and not left_alone:
        raise ValueError(
            f"no {target.__module__}.{target.__qualname__} in {type(model).__qualname__}: nothing was replaced; "
            "pass target= the class of the attention that the model uses"
        )
    return model
