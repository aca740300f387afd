"""The works and sizes of each preset, as data: the command line takes the names from here, without torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from equivcheck.gpt import GPTConfig

__all__ = ["ALONE", "DTYPES", "PRESETS", "WHOLE", "WORKS", "Preset", "Size"]

WORKS = ("attention", "attention + backward", "GPT", "training step")
"""Attention and GPT: forward in eval, no autograd; attention + backward and training step (AdamW): in train mode."""

DTYPES = ("float32", "bfloat16", "float16")
"""The dtypes in which a pair is timed."""

ALONE, WHOLE = WORKS[:2], WORKS[2:]
"""The works of an attention alone, and those of a whole GPT."""


@dataclass(frozen=True)
class Size:
    """B sequences of T positions through `layers` blocks of width C with H heads; rates are those of train mode."""

    B: int
    T: int
    H: int
    C: int
    layers: int
    block_size: int
    vocab_size: int
    rate: float

    def config(self) -> "GPTConfig":
        """The minGPT config of this size."""
        from equivcheck.gpt import GPTConfig

        return GPTConfig(
            vocab_size=self.vocab_size,
            block_size=self.block_size,
            n_layer=self.layers,
            n_head=self.H,
            n_embd=self.C,
            embd_pdrop=self.rate,
            resid_pdrop=self.rate,
            attn_pdrop=self.rate,
        )


@dataclass(frozen=True)
class Preset:
    """The dtypes of a preset, and the sizes of each work."""

    dtypes: tuple[str, ...]
    sizes: Mapping[str, tuple[Size, ...]]  # work -> its sizes


_GUIDE = Size(256, 399, 8, 256, 4, 400, 73, 0.1)
_GPT2 = Size(8, 1024, 12, 768, 12, 1024, 50257, 0.1)
_LONG = tuple(Size(1, 2**n, 12, 768, 1, 2**n, 1, 0.0) for n in range(10, 18))
_SMALL = tuple(Size(4, T, 4, 64, 2, 512, 73, 0.1) for T in (64, 128, 256, 512))

PRESETS: Mapping[str, Preset] = {
    "guide": Preset(("float32", "bfloat16"), dict.fromkeys(WORKS, (_GUIDE,))),
    "gpt2": Preset(("float32", "bfloat16"), dict.fromkeys(WORKS, (_GPT2,))),
    "long": Preset(("bfloat16",), dict.fromkeys(ALONE, _LONG)),
    "small": Preset(("float32",), {w: _SMALL if w in ALONE else _SMALL[1:2] for w in WORKS}),
}
"""`small` is for a CPU, `guide` and `gpt2` are common sizes, `long` is attention alone from 1k to 128k positions."""
