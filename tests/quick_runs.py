"""Runs of the shipped pair that take little time, and wrong candidates for them."""

from typing import Any

from equivcheck import api as module
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.report.model import Report

verify, replay, assert_equivalent = module.verify, module.replay, module.assert_equivalent


REFERENCE = "equivcheck.attention:CausalSelfAttention"


CANDIDATE = "equivcheck.attention:FlashCausalSelfAttention"


WRONG = """
import math
import torch
import torch.nn.functional as F
from equivcheck.attention import CausalSelfAttention

class OffByOne(CausalSelfAttention):
    def __init__(self, config):
        super().__init__(config)
        self.mask = torch.ones_like(self.mask).tril(1)

    def load_state_dict(self, state, strict=True):
        return super().load_state_dict({n: self.mask if n == "mask" else t for n, t in state.items()}, strict)

class Scaled(CausalSelfAttention):
    def forward(self, x):
        T = x.size(1)
        q, k, v = self._heads(x)
        att = (q @ k.mT) / math.sqrt(x.size(-1))
        att = att.masked_fill(self.mask[:, :, :T, :T] == 0, -math.inf)
        return self._merge(self.attn_drop(F.softmax(att, -1)) @ v)

class DroppingInEval(CausalSelfAttention):
    def forward(self, x):
        q, k, v = self._heads(x)
        return self._merge(F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=self.attn_drop.p))

class Detaching(CausalSelfAttention):
    def _heads(self, x):
        q, k, v = super()._heads(x)
        return q, k.detach(), v

class WrongOffTheTile(CausalSelfAttention):
    def forward(self, x):
        y = super().forward(x)
        return y * 1.1 if x.size(1) % 32 else y

class WrongFrom257(CausalSelfAttention):
    def forward(self, x):
        y = super().forward(x)
        return y * 1.1 if x.size(1) > 256 else y
"""


def quick(reference: Any = REFERENCE, candidate: Any = CANDIDATE, **options: Any) -> Report:
    return verify(reference, candidate, **({"device": "cpu", "profile": "quick", "checks": ["interface"]} | options))


def here(**options: Any) -> Report:
    """As `quick`, in this process, in which a test has changed something."""
    return quick(CausalSelfAttention, FlashCausalSelfAttention, **options)
