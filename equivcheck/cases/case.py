"""A case: one generated problem, frozen and validated, with an id that rebuilds it and inputs that come from its seed."""

import hashlib
import math
import re
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from equivcheck.cases.config import CaseConfig
from equivcheck.errors import UsageError
from equivcheck.gpt import GPTConfig
from equivcheck.numerics.dtypes import DTYPES, HALF

__all__ = [
    "ALIGNED_BYTES",
    "DTYPES",
    "HALF",
    "LAYOUTS",
    "MASKS",
    "REGIMES",
    "REPEATING",
    "Case",
    "arrange",
    "generator",
    "tiny_factor",
]

LAYOUTS = ("contiguous", "transposed", "strided", "offset", "expanded")
REGIMES = (
    "sharpened",  # softmax entropy between some 0.3 and 0.6 of its maximum: what a trained attention looks like
    "near_initial",  # minGPT's initial weights: attention is almost uniform
    "large_scores",  # saturated softmax
    "ties",  # exact ties at the maximum
    "one_hot",  # inputs with one entry that is not zero
    "constant_v",  # every key has the same value
    "zero_rows",  # half of the positions are zero
    "same_sign_v",  # values with a common mean: rowsum(dO * O) cancels
    "tiny",  # products underflow
    "near_limit",  # values near the largest number of the dtype
)

ALIGNED_BYTES = 16
"""Where a tensor begins on CUDA, a multiple of these is taken for granted by torch's own kernels: of what begins elsewhere cuDNN
gives another result, and flash loses the GPU (torch 2.11). So the layout `offset` begins at one there, and anywhere on a CPU."""

TOKENS = ("random", "text")
MASKS = (
    "",  # none
    "right",  # padding: the last keys of some samples are hidden, down to none
    "left",
    "middle",
    "some",  # each query has keys of its own, at random
    "rows",  # some queries see no key at all
    "heads",  # as `some`, each head for itself
    "plane",  # as `some`, for all samples and heads alike, in two dimensions
    "additive",  # finite numbers that are added to the scores
    "both",  # finite numbers and minus infinity
    "bias",  # finite numbers, other ones for each head
)
"""What a function's `attn_mask` hides or adds; boolean up to `plane`, True for what is seen."""

REPEATING = ("ties", "one_hot", "constant_v", "zero_rows")
"""The regimes in which the same values come up many times, and rounding errs the same way each time."""

_ID = re.compile(
    r"B(?P<batch_size>\d+)-T(?P<seq_len>\d+)-H(?P<n_head>\d+)-D(?P<head_size>\d+)-K(?P<block_size>\d+)"
    r"-(?P<dtype>[a-z0-9]+)-(?P<mode>eval|train)-a(?P<attn_pdrop>[\d.]+)-r(?P<resid_pdrop>[\d.]+)"
    r"-(?P<regime>\w+)-(?P<layout>[a-z]+)-s(?P<seed>\d+)"
    r"(?:-L(?P<n_layer>\d+)-V(?P<vocab_size>\d+)-(?P<tokens>text|random))?"
    r"(?:-S(?P<kv_len>\d+))?(?:-G(?P<kv_heads>\d+))?(?:-E(?P<value_size>\d+))?(?:-m(?P<mask>[a-z]+))?"
    r"(?:-c(?P<scale>[\d.]+))?(?:-after-(?P<steps>[a-z]+))?(?P<full>-full)?"
)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One problem: B sequences of T positions, `n_head` heads of `head_size`, in one dtype, mode, regime and layout.

    `n_layer`, `vocab_size` and `tokens` matter for models; `scale` (None: 1 / sqrt(head_size)) and `is_causal` for functions;
    `steps`, a letter each, for the check of modes. For functions `kv_len`, `kv_heads` and `value_size` are other lengths, heads
    and sizes of keys and values, where they are not 0, and `mask` is one of `MASKS`.
    Raises UsageError for a value that is not allowed.
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
        for name in ("batch_size", "seq_len", "n_head", "head_size", "block_size", "vocab_size"):
            if getattr(self, name) < 1:
                raise UsageError(f"a case has {name}={getattr(self, name)}: it must be at least 1")
        for name in ("n_layer", "seed", "kv_len", "kv_heads", "value_size"):
            if getattr(self, name) < 0:
                raise UsageError(f"a case has {name}={getattr(self, name)}: it must not be negative")
        if self.block_size < self.seq_len:
            raise UsageError(f"a case has seq_len={self.seq_len} past block_size={self.block_size}: shorten it")
        for name, allowed in (
            ("dtype", DTYPES),
            ("regime", REGIMES),
            ("layout", LAYOUTS),
            ("tokens", TOKENS),
            ("mask", MASKS),
        ):
            if getattr(self, name) not in allowed:
                raise UsageError(f"a case has {name}={getattr(self, name)!r}: allowed are {', '.join(allowed)}")
        if self.kv_heads and self.n_head % self.kv_heads:
            raise UsageError(f"a case has kv_heads={self.kv_heads}: it must divide n_head={self.n_head}")
        if not re.fullmatch(r"[a-z]*", self.steps):
            raise UsageError(f"a case has steps={self.steps!r}: they are lower-case letters")
        for name in ("attn_pdrop", "resid_pdrop"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(f"a case has {name}={getattr(self, name)}: a rate lies between 0 and 1")

    @property
    def n_embd(self) -> int:
        """The width C = n_head * head_size."""
        return self.n_head * self.head_size

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch knows it."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype

    @property
    def id(self) -> str:
        """The case in one word, which `Case.parse` turns back into it."""
        text = (
            f"B{self.batch_size}-T{self.seq_len}-H{self.n_head}-D{self.head_size}-K{self.block_size}-{self.dtype}"
            f"-{'train' if self.training else 'eval'}-a{self.attn_pdrop:.6g}-r{self.resid_pdrop:.6g}"
            f"-{self.regime}-{self.layout}-s{self.seed}"
        )
        if self.n_layer:
            text += f"-L{self.n_layer}-V{self.vocab_size}-{self.tokens}"
        for letter, value in (("S", self.kv_len), ("G", self.kv_heads), ("E", self.value_size), ("m", self.mask)):
            text += f"-{letter}{value}" if value else ""
        if self.scale is not None:
            text += f"-c{self.scale:.6g}"
        if self.steps:
            text += f"-after-{self.steps}"
        return text if self.is_causal else text + "-full"

    @classmethod
    def parse(cls, text: str) -> "Case":
        """The case whose id is `text`; a UsageError where there is none."""
        match = _ID.fullmatch(text)
        if match is None:
            raise UsageError(
                f"case id {text!r} does not parse: it looks like {cls(seq_len=3, block_size=4).id}; copy it from a report"
            )
        found = {name: value for name, value in match.groupdict().items() if value is not None}
        values: dict[str, Any] = {
            "training": found.pop("mode") == "train",
            "is_causal": found.pop("full", None) is None,
        }
        kinds = {f.name: f.type for f in fields(cls)}
        try:
            for name, value in found.items():
                values[name] = int(value) if kinds[name] is int else value if kinds[name] is str else float(value)
        except ValueError as error:
            raise UsageError(f"case id {text!r} does not parse: {error}; copy it from a report") from None
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


def generator(case: Case, purpose: str) -> torch.Generator:
    """A CPU generator that depends on the case's seed and the purpose only, so that shrinking a size keeps the rest alike."""
    digest = hashlib.sha256(f"{case.seed}:{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def tiny_factor(dtype: torch.dtype) -> float:
    """A factor whose square is below the smallest normal number of the dtype, and which itself is not."""
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
