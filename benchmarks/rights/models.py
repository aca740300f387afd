"""Three small GPTs, and models and replacements that are right for them."""

import math
from types import MethodType

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


def rotate(x: Tensor) -> Tensor:
    """Rotary positions by halves; heads of an even size only."""
    half, odd = divmod(x.size(-1), 2)
    if odd:
        raise ValueError("rotary positions need heads of an even size")
    wide = torch.promote_types(x.dtype, torch.float32)
    speed = torch.exp(torch.arange(half, dtype=wide, device=x.device) * (-math.log(10000.0) / half))
    turn = torch.arange(x.size(-2), dtype=wide, device=x.device)[:, None] * speed
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * turn.cos() - b * turn.sin(), b * turn.cos() + a * turn.sin()), -1).to(x.dtype)


def eager(q: Tensor, k: Tensor, v: Tensor, p: float = 0.0) -> Tensor:
    """Causal attention as one writes it first."""
    s = q @ k.mT / math.sqrt(q.size(-1))
    s = s.masked_fill(torch.ones(s.shape[-2:], dtype=torch.bool, device=s.device).triu(1), -math.inf)
    return F.dropout(s.softmax(-1), p) @ v


def cross_entropy(logits: Tensor, targets: Tensor | None) -> Tensor | None:
    if targets is None:
        return None
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)


# --- a GPT with rotary positions; returns logits


class RotaryAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_head, self.p = config.n_head, config.attn_pdrop
        self.wq, self.wk, self.wv, self.wo = (nn.Linear(config.n_embd, config.n_embd, bias=False) for _ in range(4))

    def project(self, x):
        return self.wq(x), self.wk(x), self.wv(x)

    def core(self, q, k, v):
        return eager(q, k, v, self.p if self.training else 0.0)

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (self.n_head, -1)).transpose(1, 2) for t in self.project(x))
        return self.wo(self.core(rotate(q), rotate(k), v).transpose(1, 2).flatten(2))


class RotaryBlock(nn.Module):
    def __init__(self, config, attention):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(config.n_embd), nn.LayerNorm(config.n_embd)
        self.attn = attention(config)
        self.up, self.down = nn.Linear(config.n_embd, 2 * config.n_embd), nn.Linear(2 * config.n_embd, config.n_embd)
        self.drop = nn.Dropout(config.resid_pdrop)

    def forward(self, x):
        x = x + self.drop(self.attn(self.norm1(x)))
        return x + self.drop(self.down(F.gelu(self.up(self.norm2(x)))))


class RotaryGPT(nn.Module):
    def __init__(self, config, attention=RotaryAttention):
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.n_embd)
        self.blocks = nn.ModuleList(RotaryBlock(config, attention) for _ in range(config.n_layer))
        self.norm, self.head = nn.LayerNorm(config.n_embd), nn.Linear(config.n_embd, config.vocab_size, bias=False)

    def forward(self, idx, targets=None):
        x = self.tokens(idx)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def rotary_gpt(config):
    """Original: rotary positions, LayerNorm, logits alone."""
    return RotaryGPT(config)


class _RotarySdpa(RotaryAttention):
    def core(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=self.p if self.training else 0.0)


def rotary_sdpa(config):
    """Right: torch's kernel, dropping in training only."""
    return RotaryGPT(config, _RotarySdpa)


class _RotaryStacked(RotaryAttention):
    def project(self, x):
        return F.linear(x, torch.cat((self.wq.weight, self.wk.weight, self.wv.weight))).chunk(3, -1)


def rotary_stacked(config):
    """Right: one multiplication by the three weights."""
    return RotaryGPT(config, _RotaryStacked)


class _RotaryPrefix(RotaryAttention):
    def core(self, q, k, v):
        p, parts = self.p if self.training else 0.0, []
        for start in range(0, q.size(2), 8):
            rows, stop = q[:, :, start : start + 8], min(start + 8, q.size(2))
            s = rows @ k[:, :, :stop].mT / math.sqrt(q.size(-1))
            i = torch.arange(start, stop, device=q.device)[:, None]
            s = s.masked_fill(torch.arange(stop, device=q.device) > i, -math.inf)
            parts.append(F.dropout(s.softmax(-1), p) @ v[:, :, :stop])
        return torch.cat(parts, 2)


def rotary_prefixes(model):
    """Right: eight queries at a time, with the keys up to them; the attentions only change their class."""
    for block in model.blocks:
        block.attn.__class__ = _RotaryPrefix
    return model


# --- a GPT with grouped heads, RMSNorm and SwiGLU; returns logits and loss


class RMSNorm(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x):
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)).to(x.dtype) * self.weight


class GroupedAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.n_head, self.p = config.n_head, config.attn_pdrop
        self.n_kv_head = config.n_head // 2 if config.n_head % 2 == 0 else config.n_head
        self.head_size = config.n_embd // config.n_head
        self.q = nn.Linear(config.n_embd, config.n_embd, bias=False)
        self.kv = nn.Linear(config.n_embd, 2 * self.n_kv_head * self.head_size, bias=False)
        self.o = nn.Linear(config.n_embd, config.n_embd, bias=False)

    def core(self, q, k, v):
        k, v = (t.repeat_interleave(self.n_head // self.n_kv_head, 1) for t in (k, v))
        return eager(q, k, v, self.p if self.training else 0.0)

    def forward(self, x):
        q, (k, v) = self.q(x), self.kv(x).chunk(2, -1)
        q, k, v = (t.unflatten(-1, (-1, self.head_size)).transpose(1, 2) for t in (q, k, v))
        return self.o(self.core(rotate(q), rotate(k), v).transpose(1, 2).flatten(2))


class SwiGLU(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(size, 2 * size), nn.Linear(size, 2 * size), nn.Linear(2 * size, size)

    def forward(self, x):
        return self.down(F.silu(self.gate(x)) * self.up(x))


class GroupedGPT(nn.Module):
    def __init__(self, config, attention=GroupedAttention):
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.n_embd)
        self.layers = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": RMSNorm(config.n_embd),
                    "attn": attention(config),
                    "norm2": RMSNorm(config.n_embd),
                    "mlp": SwiGLU(config.n_embd),
                }
            )
            for _ in range(config.n_layer)
        )
        self.norm, self.head = RMSNorm(config.n_embd), nn.Linear(config.n_embd, config.vocab_size, bias=False)

    def forward(self, idx, targets=None):
        x = self.tokens(idx)
        for layer in self.layers:
            x = x + layer["attn"](layer["norm1"](x))
            x = x + layer["mlp"](layer["norm2"](x))
        logits = self.head(self.norm(x))
        return logits, cross_entropy(logits, targets)


def grouped_gpt(config):
    """Original: two heads of q share one of k and v; rotary, RMSNorm, SwiGLU; logits and loss."""
    return GroupedGPT(config)


class _GroupedFolded(GroupedAttention):
    def core(self, q, k, v):
        t, groups = q.size(2), self.n_head // self.n_kv_head
        s = q.unflatten(1, (-1, groups)).flatten(2, 3) @ k.mT / math.sqrt(self.head_size)
        i = torch.arange(t, device=q.device).repeat(groups)
        s = s.masked_fill(i[:, None] < torch.arange(t, device=q.device), -math.inf)
        y = F.dropout(s.softmax(-1), self.p, self.training) @ v
        return y.unflatten(2, (groups, t)).flatten(1, 2)


def grouped_folded(config):
    """Right: the queries of a group are further rows of one head."""
    return GroupedGPT(config, _GroupedFolded)


def _kernel_core(self, q, k, v):
    p = self.p if self.training else 0.0
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=p, enable_gqa=True)


def grouped_bound(model):
    """Right: a method around torch's kernel is bound to each attention."""
    for layer in model.layers:
        layer["attn"].core = MethodType(_kernel_core, layer["attn"])
    return model


class _GroupedUpcast(nn.Module):
    def __init__(self, old):
        super().__init__()
        self.n_head, self.n_kv_head, self.head_size, self.p = old.n_head, old.n_kv_head, old.head_size, old.p
        self.q, self.kv, self.o = old.q, old.kv, old.o
        self.train(old.training)

    def forward(self, x):
        q, (k, v) = self.q(x), self.kv(x).chunk(2, -1)
        q, k, v = (t.unflatten(-1, (-1, self.head_size)).transpose(1, 2) for t in (q, k, v))
        q, k, result = rotate(q), rotate(k), v.dtype
        k, v = (t.repeat_interleave(self.n_head // self.n_kv_head, 1) for t in (k, v))
        with torch.autocast(x.device.type, enabled=False):
            q, k, v = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (q, k, v))
            y = eager(q, k, v, self.p if self.training else 0.0).to(result)
        return self.o(y.transpose(1, 2).flatten(2))


def grouped_upcast(model):
    """Right: new attentions take over the old ones' projections; float32 at least between them."""
    for layer in model.layers:
        layer["attn"] = _GroupedUpcast(layer["attn"])
    return model


# --- a GPT with learned positions, the head tied to the embedding; returns logits and loss


class LearnedAttention(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.c_attn, self.c_proj = (
            nn.Linear(config.n_embd, 3 * config.n_embd),
            nn.Linear(config.n_embd, config.n_embd),
        )
        self.n_head, self.p, self.resid = config.n_head, config.attn_pdrop, nn.Dropout(config.resid_pdrop)
        self.attend = eager

    def forward(self, x):
        q, k, v = self.c_attn(x).unflatten(-1, (3, self.n_head, -1)).permute(2, 0, 3, 1, 4)
        y = self.attend(q, k, v, self.p if self.training else 0.0)
        return self.resid(self.c_proj(y.transpose(1, 2).flatten(2)))


class LearnedBlock(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(config.n_embd), nn.LayerNorm(config.n_embd)
        self.attn = LearnedAttention(config)
        self.mlp = nn.Sequential(
            nn.Linear(config.n_embd, 4 * config.n_embd),
            nn.GELU(),
            nn.Linear(4 * config.n_embd, config.n_embd),
            nn.Dropout(config.resid_pdrop),
        )

    def forward(self, x):
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class LearnedGPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.block_size = config.block_size
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.drop = nn.Dropout(getattr(config, "embd_pdrop", 0.0))
        self.h = nn.ModuleList(LearnedBlock(config) for _ in range(config.n_layer))
        self.ln_f, self.lm_head = nn.LayerNorm(config.n_embd), nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.lm_head.weight = self.wte.weight

    def forward(self, idx, targets=None):
        if idx.size(1) > self.block_size:
            raise ValueError(f"{idx.size(1)} tokens, but block_size is {self.block_size}")
        x = self.drop(self.wte(idx) + self.wpe(torch.arange(idx.size(1), device=idx.device)))
        for block in self.h:
            x = block(x)
        logits = self.lm_head(self.ln_f(x))
        return logits, cross_entropy(logits, targets)


def learned_gpt(config):
    """Original: learned positions, a tied head; logits and loss."""
    return LearnedGPT(config)


def _recomputed(q, k, v, p=0.0):
    return checkpoint(eager, q, k, v, p, use_reentrant=False) if torch.is_grad_enabled() else eager(q, k, v, p)


def learned_checkpointed(config):
    """Right: the probabilities are computed again in backward."""
    model = LearnedGPT(config)
    for block in model.h:
        block.attn.attend = _recomputed
    return model


def _kernel(q, k, v, p=0.0):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=p)


def learned_kernel(model):
    """Right: the function that the attentions call is exchanged for torch's kernel."""
    for block in model.h:
        block.attn.attend = _kernel
    return model


class _LearnedPerHead(LearnedAttention):
    def forward(self, x):
        weights, biases = (t.unflatten(0, (3, self.n_head, -1)) for t in (self.c_attn.weight, self.c_attn.bias))
        heads = []
        for h in range(self.n_head):
            q, k, v = (F.linear(x, weights[i, h], biases[i, h]) for i in range(3))
            heads.append(eager(q, k, v, self.p if self.training else 0.0))
        return self.resid(self.c_proj(torch.cat(heads, -1)))


def learned_per_head(model):
    """Right: each head has its own small projection, cut out of the shared weight."""
    for block in model.h:
        block.attn.__class__ = _LearnedPerHead
    return model
