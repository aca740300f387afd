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

from equivcheck.causal_mask import is_causal, is_causal_once
from equivcheck.fused import causal_attention, is_transformed

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

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        q, k, v = _heads(self, x)
        self.attention_weights = _probabilities(self, q, k)
        return _merge(self, self.attention_weights @ v)


def _heads(attention: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    B, T, C = x.shape
    shape = (B, T, attention.n_head, C // attention.n_head)
    q = attention.query(x).view(shape).transpose(1, 2)  # (B, nh, T, hs)
    k = attention.key(x).view(shape).transpose(1, 2)  # (B, nh, T, hs)
    v = attention.value(x).view(shape).transpose(1, 2)  # (B, nh, T, hs)
    return q, k, v


def _probabilities(attention: Any, q: Tensor, k: Tensor) -> Tensor:
    T = q.size(-2)
    att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))  # (B, nh, T, T)
    att = att.masked_fill(attention.mask[:, :, :T, :T] == 0, -float("inf"))
    att = F.softmax(att, dim=-1)
    return attention.attn_drop(att)  # type: ignore[no-any-return]  # nn.Module calls are Any


def _merge(attention: Any, y: Tensor) -> Tensor:
    B, nh, T, hs = y.shape
    y = y.transpose(1, 2).contiguous().view(B, T, nh * hs)  # (B, T, C)
    return attention.resid_drop(attention.proj(y))  # type: ignore[no-any-return]  # nn.Module calls are Any


class FlashCausalSelfAttention(CausalSelfAttention):
    """The same function of the same weights through torch's fused kernels; `attention_weights` stays None.

    Submodules, rates, modes and `mask` are obeyed as they are at each call, and T past `block_size` is refused as the original
    does. Where no kernel computes what the original does, its own formula runs, with its time and memory: a mask that is not
    the causal one, attention dropout that is no plain `nn.Dropout` below 1 or has hooks, transforms of torch.func,
    forward-mode differentiation, second derivatives. Compiled, a mask that is not causal is used as it is, and a causal one
    is looked at when it is compiled: after an edit, call `torch.compiler.reset()`.

    Where the original itself breaks down, the kernels differ: NaN and infinity in the future of a query do not reach it, and
    float16 scores do not overflow.
    """

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        q, k, v = _heads(self, x)
        T, block_size = q.size(-2), self.mask.size(-1)
        if 1 < block_size < T:  # a mask of one place broadcasts, in the original too
            # the kernel would run; the original cannot, and a drop-in must not hide the mistake
            raise RuntimeError(f"sequence of length T={T} is longer than block_size={block_size}: shorten the input")
        if _a_kernel_serves(self, q, k, v):
            return _merge(self, causal_attention(q, k, v, dropout_p=_rate(self.attn_drop)))
        return _merge(self, _probabilities(self, q, k) @ v)


def _a_kernel_serves(attention: Any, q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether a causal kernel computes what the original does with these; cheap, and decided anew at each call."""
    drop, mask = attention.attn_drop, attention.mask
    return (
        type(drop) is nn.Dropout
        and not (drop._forward_hooks or drop._forward_pre_hooks or drop._backward_hooks or drop._backward_pre_hooks)
        and "forward" not in vars(drop)
        and 0.0 <= drop.p <= 1.0
        and _rate(drop) < 1.0
        and q.numel() > 0
        and mask.device == q.device
        and not is_transformed(q, k, v)
        and (is_causal_once(mask) if torch.compiler.is_compiling() else is_causal(mask))
    )


def _rate(drop: nn.Dropout) -> float:
    return float(drop.p) if drop.training else 0.0


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
