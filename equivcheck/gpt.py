"""A GPT of the minGPT family in one file.

Token embedding plus learned positions, pre-norm blocks (attention, then an MLP with GELU), a final norm and an untied
head. The attention of the blocks is an argument, so that an original and a candidate can be compared in the same model.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention

__all__ = ["GPT", "Block", "GPTConfig"]


@dataclass
class GPTConfig:
    """The fields of minGPT: counts, `block_size` for the longest sequence, and three rates, probabilities in [0, 1]."""

    vocab_size: int
    block_size: int
    n_layer: int = 4
    n_head: int = 4
    n_embd: int = 128
    embd_pdrop: float = 0.1
    resid_pdrop: float = 0.1
    attn_pdrop: float = 0.1


class Block(nn.Module):
    """One transformer block: attention and MLP each read the normed input and add their result to the input."""

    def __init__(self, config: GPTConfig, attention: Callable[[Any], nn.Module] = CausalSelfAttention) -> None:
        super().__init__()
        self.ln1 = nn.LayerNorm(config.n_embd)
        self.ln2 = nn.LayerNorm(config.n_embd)
        self.attn = attention(config)
        self.mlp = nn.Sequential(
            nn.Linear(config.n_embd, 4 * config.n_embd),
            nn.GELU(),
            nn.Linear(4 * config.n_embd, config.n_embd),
            nn.Dropout(config.resid_pdrop),
        )

    def forward(self, x: Float[Tensor, "B T C"]) -> Float[Tensor, "B T C"]:
        x = x + self.attn(self.ln1(x))  # (B, T, C)
        return x + self.mlp(self.ln2(x))  # type: ignore[no-any-return]  # nn.Module calls are Any


class GPT(nn.Module):
    """`forward(idx: (B, T)) -> (logits: (B, T, vocab_size), loss or None)`; a T past `block_size` is a ValueError."""

    def __init__(self, config: GPTConfig, attention: Callable[[Any], nn.Module] = CausalSelfAttention) -> None:
        super().__init__()
        self.config = config
        self.block_size = config.block_size
        self.tok_emb = nn.Embedding(config.vocab_size, config.n_embd)
        self.pos_emb = nn.Parameter(torch.zeros(1, config.block_size, config.n_embd))
        self.drop = nn.Dropout(config.embd_pdrop)
        self.blocks = nn.ModuleList(Block(config, attention) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.apply(self._init_weights)

    @staticmethod
    def _init_weights(module: nn.Module) -> None:
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, mean=0.0, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward(
        self, idx: Int[Tensor, "B T"], targets: Int[Tensor, "B T"] | None = None, return_attentions: bool = False
    ) -> tuple[Any, ...]:
        """Logits, and their mean cross-entropy if targets are given.

        Args:
            idx: Token ids.
            targets: The ids that follow them; -1 is not counted.
            return_attentions: Whether to return a third item: a list with the `attention_weights` of each block,
                (B, nh, T, T), or None if a fused kernel stores none.
        """
        B, T = idx.shape
        if self.block_size < T:
            raise ValueError(f"sequence of length T={T} is longer than block_size={self.block_size}: shorten the input")
        x = self.drop(self.tok_emb(idx) + self.pos_emb[:, :T, :])  # (B, T, C)
        attentions = []
        for block in self.blocks:
            x = block(x)  # (B, T, C)
            attentions.append(getattr(block.attn, "attention_weights", None))
        logits = self.head(self.ln_f(x))  # (B, T, vocab_size)
        loss = None
        if targets is not None:
            loss = F.cross_entropy(logits.view(B * T, -1), targets.reshape(B * T), ignore_index=-1)
        return (logits, loss, attentions) if return_attentions else (logits, loss)

    @torch.no_grad()
    def generate(
        self,
        idx: Int[Tensor, "B T"],
        max_new_tokens: int,
        temperature: float = 1.0,
        do_sample: bool = False,
        top_k: int | None = None,
    ) -> Int[Tensor, "B T_new"]:
        """Append `max_new_tokens` tokens to `idx`; the context is the last `block_size` tokens.

        Args:
            idx: Token ids.
            max_new_tokens: The number of tokens to append.
            temperature: The divisor of the logits.
            do_sample: Whether tokens are sampled; else the likeliest is taken.
            top_k: The number of likeliest tokens to choose from; None for all.
        """
        for _ in range(max_new_tokens):
            logits = self(idx[:, -self.block_size :])[0][:, -1, :] / temperature  # (B, vocab_size)
            if top_k is not None:
                largest = torch.topk(logits, min(top_k, logits.size(-1))).values  # (B, top_k)
                logits = logits.masked_fill(logits < largest[:, -1:], -float("inf"))
            if do_sample:
                token = torch.multinomial(F.softmax(logits, dim=-1), num_samples=1)  # (B, 1)
            else:
                token = logits.argmax(dim=-1, keepdim=True)  # (B, 1)
            idx = torch.cat((idx, token), dim=1)  # (B, T + 1)
        return idx
