"""Wrong by refusal: where the originals run, these candidates raise; elsewhere they agree."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def reference(q, k, v, *, attn_mask=None, is_causal=False, scale=None) -> Tensor:
    """Original: every length and batch."""
    s = (q @ k.mT) * (1 / math.sqrt(q.size(-1)) if scale is None else scale)
    if is_causal:
        s = s.masked_fill(torch.ones_like(s, dtype=torch.bool).triu(1), -math.inf)
    if attn_mask is not None:
        s = s.masked_fill(~attn_mask, -math.inf) if attn_mask.dtype == torch.bool else s + attn_mask
    return s.softmax(-1) @ v


def no_single_token(q, k, v, *, attn_mask=None, is_causal=False, scale=None) -> Tensor:
    """Wrong: a single query is refused."""
    if q.size(2) == 1:
        raise ValueError("cannot attend from a single query")
    return reference(q, k, v, attn_mask=attn_mask, is_causal=is_causal, scale=scale)


def up_to_sixty_four(q, k, v, *, attn_mask=None, is_causal=False, scale=None) -> Tensor:
    """Wrong: its table of positions ends at 64."""
    later = torch.ones(64, 64, dtype=torch.bool, device=q.device).triu(1)
    if max(q.size(2), k.size(2)) > later.size(0):
        raise IndexError("more than 64 positions")
    mask = attn_mask
    if is_causal:
        seen = ~later[: q.size(2), : k.size(2)]
        if mask is None:
            mask = seen
        elif mask.dtype == torch.bool:
            mask = mask & seen
        else:
            mask = torch.where(seen, mask, -math.inf)
    return reference(q, k, v, attn_mask=mask, scale=scale)


def no_single_sample(q, k, v, *, attn_mask=None, is_causal=False, scale=None) -> Tensor:
    """Wrong: `squeeze` takes the batch away where it is one."""
    q, k, v = (t.squeeze(0) for t in (q, k, v))
    if q.dim() != 4:
        raise RuntimeError(f"expected four dimensions, got {q.dim()}")
    return reference(q, k, v, attn_mask=attn_mask, is_causal=is_causal, scale=scale)


def even_lengths(q, k, v, *, attn_mask=None, is_causal=False, scale=None) -> Tensor:
    """Wrong: queries are taken in pairs, and an odd one is not provided for."""
    pairs = q.unflatten(2, (-1, 2)) if q.size(2) % 2 == 0 else q.unflatten(2, (q.size(2) // 2, 2))
    return reference(pairs.flatten(2, 3), k, v, attn_mask=attn_mask, is_causal=is_causal, scale=scale)


class Reference(nn.Module):
    """Original: causal, every length and batch."""

    def __init__(self, config):
        super().__init__()
        self.c_attn, self.c_proj = (
            nn.Linear(config.n_embd, 3 * config.n_embd),
            nn.Linear(config.n_embd, config.n_embd),
        )
        self.n_head, self.p = config.n_head, config.attn_pdrop
        self.resid_dropout = nn.Dropout(config.resid_pdrop)

    def core(self, q, k, v):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=self.p if self.training else 0.0)

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (self.n_head, -1)).transpose(1, 2) for t in self.c_attn(x).chunk(3, -1))
        return self.resid_dropout(self.c_proj(self.core(q, k, v).transpose(1, 2).flatten(2)))


class NoSingleToken(Reference):
    """Wrong: a single token is refused."""

    def core(self, q, k, v):
        if q.size(2) == 1:
            raise RuntimeError("softmax over a single key")
        return super().core(q, k, v)


class UpToSixtyFour(Reference):
    """Wrong: its mask is of 64 positions, whatever config.block_size says."""

    def __init__(self, config):
        super().__init__(config)
        self.register_buffer("seen", torch.ones(64, 64, dtype=torch.bool).tril(), persistent=False)

    def core(self, q, k, v):
        t = q.size(2)
        seen = self.seen[:t, :t].expand(q.size(0), 1, t, t)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=self.p if self.training else 0.0)


class NoSingleSample(Reference):
    """Wrong: an unpacking that a batch of one does not survive."""

    def forward(self, x):
        B, _, _ = x.squeeze(0).shape
        return super().forward(x[:B])


class EvenLengths(Reference):
    """Wrong: an odd number of tokens cannot be halved."""

    def core(self, q, k, v):
        first, second = q.unflatten(2, (2, q.size(2) // 2)).unbind(2)
        return super().core(torch.cat((first, second), 2), k, v)
