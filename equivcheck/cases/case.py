"""A case: one generated problem, frozen and validated. Its id rebuilds it, and its seed makes its tensors."""

import hashlib
import math
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from equivcheck.cases.config import CaseConfig
from equivcheck.cases.fields import check_fields
from equivcheck.cases.ids import id_of, parse_id
from equivcheck.errors import UsageError
from equivcheck.gpt import GPTConfig

__all__ = ["ALIGNED_BYTES", "Case", "arrange", "arrange_heads_last", "generator", "tiny_factor"]

ALIGNED_BYTES = 16
"""The alignment in bytes that torch's kernels assume on CUDA: at other addresses cuDNN gives wrong results, and flash
attention loses the GPU (torch 2.11). The layout `offset` keeps to it on CUDA, and not on a CPU."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One problem: B sequences of T positions, `n_head` heads of `head_size`, in one dtype, mode, regime and layout.

    Models use `n_layer`, `vocab_size` and `tokens`. Functions use `scale` (None: 1 / sqrt(head_size)), `is_causal`,
    `mask` (one of `MASKS`), and `kv_len`, `kv_heads` and `value_size`: the length, heads and size of keys and values,
    or 0 for those of the queries. The check of modes uses `steps`, a letter each.

    Raises:
        UsageError: A value is not allowed.
    """

    batch_size: int = 1
    seq_len: int = 1
    n_head: int = 1
    head_size: int = 1
    block_size: int = 1
    dtype: str = "float32"
    training: bool = False
    attn_pdrop: float = 0.0
    resid_pdrop: float = 0.0
    regime: str = "sharpened"
    layout: str = "contiguous"
    seed: int = 0
    n_layer: int = 0
    vocab_size: int = 1
    tokens: str = "random"
    scale: float | None = None
    is_causal: bool = True
    steps: str = ""
    kv_len: int = 0
    kv_heads: int = 0
    value_size: int = 0
    mask: str = ""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.block_size < self.seq_len:
            raise UsageError(f"a case has seq_len={self.seq_len} past block_size={self.block_size}: shorten it")
        if self.kv_heads and self.n_head % self.kv_heads:
            raise UsageError(f"a case has kv_heads={self.kv_heads}: it must divide n_head={self.n_head}")

    @property
    def n_embd(self) -> int:
        """The width C = n_head * head_size."""
        return self.n_head * self.head_size

    @property
    def torch_dtype(self) -> torch.dtype:
        """torch's dtype."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    @property
    def id(self) -> str:
        """The case in one word, from which `Case.parse` rebuilds it."""
        return id_of(self, _DEFAULTS)

    @classmethod
    def parse(cls, text: str) -> "Case":
        """The case whose id is `text`; a UsageError if `text` is no id."""
        try:
            values = parse_id(text)
        except ValueError as error:
            raise UsageError(f"case id {text!r} does not parse: {error}; copy it from a report") from None
        if values is None:
            raise UsageError(
                f"case id {text!r} does not parse: it looks like {cls(seq_len=3, block_size=4).id}; "
                "copy it from a report"
            )
        return cls(**values)

    def config(self) -> GPTConfig:
        """A fresh minGPT config of this case, for a factory."""
        return CaseConfig(
            vocab_size=self.vocab_size,
            block_size=self.block_size,
            n_layer=max(self.n_layer, 1),
            n_head=self.n_head,
            n_embd=self.n_embd,
            embd_pdrop=self.resid_pdrop,
            resid_pdrop=self.resid_pdrop,
            attn_pdrop=self.attn_pdrop,
        )

    def but(self, **changes: Any) -> "Case":
        """The same case with some fields changed."""
        return replace(self, **changes)


_DEFAULTS = {field.name: field.default for field in fields(Case)}


def generator(case: Case, purpose: str) -> torch.Generator:
    """A CPU generator that depends on the case's seed and the purpose alone, so that sizes can shrink separately."""
    digest = hashlib.sha256(f"{case.seed}:{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def tiny_factor(dtype: torch.dtype) -> float:
    """A factor above the smallest normal number of the dtype, with a square below it."""
    return float(2.0 ** round(0.55 * math.log2(torch.finfo(dtype).smallest_normal)))


def arrange(x: Tensor, layout: str) -> Tensor:
    """The same values in another memory layout; `expanded` repeats the first entry of dimension 0 with stride 0."""
    if layout == "transposed":
        return x.transpose(-3, -2).contiguous().transpose(-3, -2) if x.dim() > 2 else x.t().contiguous().t()
    if layout == "strided":
        return torch.stack((x, torch.full_like(x, float("nan")) if x.is_floating_point() else x), -1)[..., 0]
    if layout == "offset":
        start = 3 if x.device.type == "cpu" else ALIGNED_BYTES // x.element_size()
        store = torch.cat((x.new_zeros(start), x.reshape(-1)))
        return store[start:].view(x.shape)
    if layout == "expanded":
        return x[:1].expand(x.shape)
    return x


def arrange_heads_last(x: Tensor, layout: str) -> Tensor:
    """The same values (B, H, T, D), arranged in a memory layout as (B, T, H, D)."""
    return arrange(x.transpose(1, 2).contiguous(), layout).transpose(1, 2)
