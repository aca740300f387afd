"""The checks by name, a case for each, and the faults that each sees."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS
from equivcheck.faults import FAULTS
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve

BY_NAME = {check.name: check for check in CHECKS}


FAULT = {fault.name: fault for fault in FAULTS}


CASES = {
    "bias": Case(batch_size=2, seq_len=33, n_head=2, head_size=16, block_size=33, dtype="bfloat16", seed=1),
    "dropout": Case(
        seq_len=3, n_head=2, head_size=2, block_size=3, training=True, attn_pdrop=0.5, resid_pdrop=0.25, seed=1
    ),
    "modes": Case(
        seq_len=3,
        n_head=2,
        head_size=2,
        block_size=3,
        training=True,
        attn_pdrop=0.5,
        resid_pdrop=0.25,
        steps="eta",
        seed=1,
    ),
    "training": Case(batch_size=2, seq_len=9, n_head=2, head_size=8, block_size=12, n_layer=2, vocab_size=17, seed=1),
    "generation": Case(batch_size=2, seq_len=9, n_head=2, head_size=8, block_size=12, n_layer=2, vocab_size=17, seed=1),
    "autocast": Case(batch_size=2, seq_len=9, n_head=2, head_size=8, block_size=12, dtype="bfloat16", seed=1),
    "compile": Case(batch_size=2, seq_len=5, n_head=2, head_size=4, block_size=6, seed=1),
    "lengths": Case(batch_size=2, seq_len=70, n_head=2, head_size=8, block_size=72, seed=1),
    "logits": Case(batch_size=2, seq_len=9, n_head=2, head_size=8, block_size=12, n_layer=4, vocab_size=17, seed=1),
}


PLAIN = Case(batch_size=3, seq_len=21, n_head=3, head_size=8, block_size=24, seed=1)


SEEN = {
    "output": ("mask-one-too-wide", "scale-of-the-embedding", "heads-interleaved", "last-row-misses-itself"),
    "gradients": ("key-detached", "key-gradient-one-percent-off", "value-bias-gradient-halved", "query-detached"),
    "causality": ("mask-missing", "masked-scores-are-zero", "first-row-sees-all", "last-key-seen-by-all"),
    "interface": ("hooks-of-the-value-bypassed", "argument-renamed", "built-in-eval-mode", "result-not-contiguous"),
    "checkpoint": ("query-key-value-fused", "projection-renamed", "mask-not-persistent", "keys-in-another-order"),
    "errors": ("block-size-not-enforced", "width-not-enforced", "rank-not-enforced", "head-count-not-checked"),
    "purity": ("input-modified-in-place", "global-flag-changed", "result-overwritten-by-the-next-call"),
    "modes": ("dropout-rate-fixed-at-construction", "dropout-off-after-eval", "dropout-mode-of-the-first-call"),
    "training": ("key-gradient-one-percent-off", "query-detached"),
    "generation": ("scale-missing", "mask-missing"),
    "dropout": ("dropout-never", "dropout-unscaled", "dropout-mask-shared-over-heads", "dropout-fresh-in-backward"),
    "logits": ("wrong-in-the-third-layer", "scale-by-the-layer"),
    "layouts": (
        "upstream-gradient-taken-for-contiguous",
        "expanded-upstream-gradient-read-once",
        "transposed-input-reads-the-first-head",
        "offset-of-the-input-ignored",
        "expanded-input-computed-once",
    ),
    "lengths": ("partial-tile-of-keys-lost", "causal-only-at-multiples-of-eight", "length-of-the-first-call-kept"),
    "batching": ("other-samples-are-zero", "third-sample-reads-the-second"),
    "derivatives": ("key-detached", "scale-missing"),
    "autocast": ("scale-missing", "key-detached"),
    "compile": ("scale-missing",),
    "bias": ("probabilities-toward-zero", "wrong-in-bfloat16", "denominator-stands-still"),
}  # fmt: skip


def case_of(check: str) -> Case:
    return CASES.get(check, PLAIN)


def pair(candidate: Any = FlashCausalSelfAttention) -> Pair:
    return resolve(CausalSelfAttention, candidate, kind="module", device="cpu")


SHIPPED = [name for name in BY_NAME if name in SEEN]


def spelled_out(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
    s = q @ k.mT * scale
    if is_causal:
        s = s.masked_fill(torch.ones(s.shape[-2:], device=s.device).triu(1) == 1, -torch.inf)
    return F.dropout(F.softmax(s, -1), dropout_p) @ v
