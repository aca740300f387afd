"""The pair that ships: minGPT's causal self-attention and its fused drop-in.

`CausalSelfAttention` computes softmax(q kᵀ / sqrt(D)) v step by step. `FlashCausalSelfAttention` calls
`F.scaled_dot_product_attention` for the same function, and inherits everything but the forward pass, so that names,
shapes and initial values stay equal.
"""

import math
from typing import ClassVar, Protocol, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from equivcheck.flash.causal_mask import is_causal, is_causal_once, is_exporting, while_causal
from equivcheck.flash.sdpa import causal_attention, is_transformed
from equivcheck.flash.swap import replace, restore

__all__ = [
    "AttentionConfig",
    "CausalSelfAttention",
    "FlashCausalSelfAttention",
    "replace_attention_with_flash_attention",
    "restore_original_attention",
]

M = TypeVar("M", bound=nn.Module)

NEEDED = (
    "key",
    "query",
    "value",
    "proj",
    "attn_drop",
    "resid_drop",
    "mask",
    "n_head",
)  # attributes that both forward passes use


class AttentionConfig(Protocol):
    """The fields of a minGPT config that an attention reads; rates are probabilities in [0, 1]."""

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
    """Multi-head causal self-attention of minGPT; each forward stores its probabilities in `attention_weights`.

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
        causal = torch.ones(
            config.block_size, config.block_size
        ).tril_()  # in place: two long ones may not fit in memory
        # persistent: old checkpoints contain it, and strict loading must still work
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

    def _probabilities(self, q: Tensor, k: Tensor) -> Tensor:
        T = q.size(-2)
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))  # (B, nh, T, T)
        att = att.masked_fill(self.mask[:, :, :T, :T] == 0, -float("inf"))
        att = F.softmax(att, dim=-1)
        return self.attn_drop(att)  # type: ignore[no-any-return]  # nn.Module calls are Any

    def _merge(self, y: Tensor) -> Tensor:
        B, nh, T, hs = y.shape
        y = y.transpose(1, 2).contiguous().view(B, T, nh * hs)  # (B, T, C)
        return self.resid_drop(self.proj(y))  # type: ignore[no-any-return]  # nn.Module calls are Any

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        q, k, v = self._heads(x)
        self.attention_weights = self._probabilities(q, k)
        return self._merge(self.attention_weights @ v)


class FlashCausalSelfAttention(CausalSelfAttention):
    """The same function of the same weights through torch's fused kernels; `attention_weights` stays None.

    Each call uses the current submodules, rates, modes and `mask`, and T past `block_size` is refused as in the
    original. If no kernel computes the original's function, its formula runs, with its time and memory: for a mask that
    is not causal, for attention dropout that is no plain `nn.Dropout` below 1 or has hooks, for transforms of
    torch.func, for forward-mode differentiation and for second derivatives. Compiled code that was traced with a causal
    mask raises RuntimeError when the mask is no longer causal.

    The kernels differ from the original where that breaks down: NaN and infinity in the future of a query do not reach
    it, and float16 scores do not overflow.
    """

    _replaces: ClassVar[type[nn.Module]] = CausalSelfAttention

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        q, k, v = self._heads(x)
        T, block_size = q.size(-2), self.mask.size(-1)
        if 1 < block_size < T:  # a mask of one element broadcasts, in the original too
            # the kernel would run; the original does not, and a drop-in must not hide the mistake
            raise RuntimeError(f"sequence of length T={T} is longer than block_size={block_size}: shorten the input")
        if _a_kernel_serves(self, q, k, v):
            y = self._merge(causal_attention(q, k, v, dropout_p=_rate(self.attn_drop)))
            return while_causal(y, self.mask) if torch.compiler.is_dynamo_compiling() and not is_exporting() else y
        return self._merge(self._probabilities(q, k) @ v)


def _a_kernel_serves(attention: CausalSelfAttention, q: Tensor, k: Tensor, v: Tensor) -> bool:
    """Whether a causal kernel computes the original's result for these inputs; quick, and decided at each call."""
    drop, mask = attention.attn_drop, attention.mask
    return (
        type(drop) is nn.Dropout
        and not (drop._forward_hooks or drop._forward_pre_hooks or drop._backward_hooks or drop._backward_pre_hooks)
        and "forward" not in drop.__dict__  # torch 2.7 does not compile `vars`
        and 0.0 <= drop.p <= 1.0
        and _rate(drop) < 1.0
        and q.numel() > 0
        and q.size(-2) <= mask.size(-1)
        and mask.device == q.device
        and not is_transformed(q, k, v)
        and (is_causal_once(mask) if torch.compiler.is_compiling() else is_causal(mask))
    )


def _rate(drop: nn.Dropout) -> float:
    return float(drop.p) if drop.training else 0.0


def replace_attention_with_flash_attention(model: M, *, target: type[nn.Module] = CausalSelfAttention) -> M:
    """Make every `target` inside `model` a `FlashCausalSelfAttention`, in place, and return the model.

    The module objects stay the same. Parameters, buffers, submodules, hooks, modes, dtypes, devices and ties stay, and
    every existing optimizer stays valid.

    Args:
        model: Any module; it may be a `target` itself.
        target: The class of the attention to replace. Another class than `CausalSelfAttention` needs the same
            attributes; its modules stay instances of it. Subclasses of `target`, and modules with a forward pass set on
            the instance, are left alone and named in a warning.

    Returns:
        The same `model`.

    Raises:
        ValueError: There is nothing to replace, or an attribute is missing. The model is unchanged.
    """
    replace(model, target, FlashCausalSelfAttention, NEEDED)
    return model


def restore_original_attention(model: M) -> M:
    """Undo `replace_attention_with_flash_attention`, in place, and return the model.

    Each module gets its old class; one that was built as a `FlashCausalSelfAttention` becomes a `CausalSelfAttention`.

    Raises:
        ValueError: There is no module of either class.
    """
    restore(model, FlashCausalSelfAttention)
    return model
