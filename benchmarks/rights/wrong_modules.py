"""Wrong candidates for the modules of modules.py and the models of models.py; parameters are named as there."""

import math
from types import MethodType

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class _Nano(nn.Module):
    """What modules.py:Nano is, around torch's kernel; nothing of it is wrong."""

    def __init__(self, config):
        super().__init__()
        bias = getattr(config, "bias", True)
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd, bias=bias)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd, bias=bias)
        self.attn_dropout, self.resid_dropout = nn.Dropout(config.attn_pdrop), nn.Dropout(config.resid_pdrop)
        self.n_head, self.n_embd, self.dropout = config.n_head, config.n_embd, config.attn_pdrop
        self.register_buffer("bias", torch.ones(1, 1, config.block_size, config.block_size).tril())

    def drop(self) -> float:
        return self.dropout if self.training else 0.0

    def attend(self, qkv: Tensor, heads: int) -> Tensor:
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in qkv.chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=self.drop())
        return y.transpose(1, 2).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.resid_dropout(self.c_proj(self.attend(self.c_attn(x), self.n_head)))


class DropsInEval(_Nano):
    """Wrong: the kernel is told to drop in eval too."""

    def drop(self):
        return self.dropout


class HeadsLeftBehind(_Nano):
    """Wrong: heads are not brought back behind the tokens before they are flattened; one head or one token hides it."""

    def attend(self, qkv, heads):
        B, T, C = qkv.size(0), qkv.size(1), qkv.size(2) // 3
        return super().attend(qkv, heads).unflatten(-1, (heads, -1)).transpose(1, 2).reshape(B, T, C)


class Unnamed(_Nano):
    """Wrong at drop-in only: `n_head`, `n_embd` and `dropout` are gone, which others read."""

    def __init__(self, config):
        super().__init__(config)
        self._heads, self._p = self.n_head, self.dropout
        del self.n_head, self.n_embd, self.dropout

    def drop(self):
        return self._p if self.training else 0.0

    def forward(self, x):
        return self.resid_dropout(self.c_proj(self.attend(self.c_attn(x), self._heads)))


class Renamed(_Nano):
    """Wrong at drop-in only: `c_attn` is called `qkv`, so no checkpoint fits."""

    def __init__(self, config):
        super().__init__(config)
        self.qkv = self.c_attn
        del self.c_attn

    def forward(self, x):
        return self.resid_dropout(self.c_proj(self.attend(self.qkv(x), self.n_head)))


class HooksBypassed(_Nano):
    """Wrong at drop-in only: weights are taken out of the projections, whose hooks never run."""

    def forward(self, x):
        y = self.attend(F.linear(x, self.c_attn.weight, self.c_attn.bias), self.n_head)
        return self.resid_dropout(F.linear(y, self.c_proj.weight, self.c_proj.bias))


class ExtraBuffer(_Nano):
    """Wrong at drop-in only: a buffer more in the state_dict."""

    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("positions", torch.arange(config.block_size))


class KeysFromOne(nn.Module):
    """Wrong for modules.py:RotaryHalf: positions of the keys begin at one, those of the queries at zero."""

    def __init__(self, config):
        super().__init__()
        C, self.n_head = config.n_embd, config.n_head
        self.head_size, self.n_kv_head = C // config.n_head, config.n_head
        if self.head_size % 2:
            raise ValueError("rotary positions need heads of an even size")
        self.wq, self.wo, self.wk, self.wv = (nn.Linear(C, C, bias=False) for _ in range(4))
        self.attn_drop, self.resid_drop = nn.Dropout(config.attn_pdrop), nn.Dropout(config.resid_pdrop)

    def rotate(self, x: Tensor, first: int = 0) -> Tensor:
        half, wide = self.head_size // 2, torch.promote_types(x.dtype, torch.float32)
        speed = 10000.0 ** (-torch.arange(half, dtype=wide, device=x.device) / half)
        turn = torch.outer(torch.arange(first, first + x.size(2), dtype=wide, device=x.device), speed)
        a, b = x.chunk(2, -1)
        return torch.cat((a * turn.cos() - b * turn.sin(), a * turn.sin() + b * turn.cos()), -1).to(x.dtype)

    def forward(self, x):
        q, k, v = (w(x).unflatten(-1, (self.n_head, -1)).transpose(1, 2) for w in (self.wq, self.wk, self.wv))
        s = self.rotate(q) @ self.rotate(k, 1).mT / math.sqrt(self.head_size)
        s = s.masked_fill(torch.ones_like(s, dtype=torch.bool).triu(1), -math.inf)
        y = self.attn_drop(s.softmax(-1)) @ v
        return self.resid_drop(self.wo(y.transpose(1, 2).flatten(2)))


class CausalInTraining(nn.Module):
    """Wrong for modules.py:Encoder: causal while training."""

    def __init__(self, config):
        super().__init__()
        C, self.n_head = config.n_embd, config.n_head
        self.head_size, self.n_kv_head = C // config.n_head, config.n_head
        self.wq, self.wo, self.wk, self.wv = (nn.Linear(C, C, bias=False) for _ in range(4))
        self.attn_drop, self.resid_drop = nn.Dropout(config.attn_pdrop), nn.Dropout(config.resid_pdrop)

    def forward(self, x):
        q, k, v = (w(x).unflatten(-1, (self.n_head, -1)).transpose(1, 2) for w in (self.wq, self.wk, self.wv))
        p = self.attn_drop.p if self.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.training, dropout_p=p)
        return self.resid_drop(self.wo(y.transpose(1, 2).flatten(2)))


def _sees_all(self, q, k, v):
    return F.scaled_dot_product_attention(q, k, v, dropout_p=self.p if self.training else 0.0)


def _causal(self, q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=self.p if self.training else 0.0)


def last_sees_all(model):
    """Wrong for models.py:rotary_gpt: the last block's attention is not causal."""
    for n, block in enumerate(model.blocks):
        block.attn.core = MethodType(_causal if n < len(model.blocks) - 1 else _sees_all, block.attn)
    return model


def _repeated(self, q, k, v):
    k, v = (t.repeat(1, self.n_head // self.n_kv_head, 1, 1) for t in (k, v))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=self.p if self.training else 0.0)


def groups_exchanged(model):
    """Wrong for models.py:grouped_gpt: heads of keys and values meet the wrong queries."""
    for layer in model.layers:
        layer["attn"].core = MethodType(_repeated, layer["attn"])
    return model


def _never_drops(q, k, v, p=0.0):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)


def dropout_forgotten(model):
    """Wrong for models.py:learned_gpt: the attention no longer drops in training."""
    for block in model.h:
        block.attn.attend = _never_drops
    return model
