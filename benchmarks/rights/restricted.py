"""Right pairs of which one or both refuse what lies outside of a domain of theirs."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HALVES = (torch.float16, torch.bfloat16)


def _later(q: int, k: int, device: torch.device) -> Tensor:
    return torch.ones(q, k, dtype=torch.bool, device=device).triu(1)


def _eager(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False, scale: float | None = None) -> Tensor:
    s = (q @ k.mT) * (1 / math.sqrt(q.size(-1)) if scale is None else scale)
    if is_causal:
        s = s.masked_fill(_later(q.size(2), k.size(2), q.device), -math.inf)
    return s.softmax(-1) @ v


def _tiled(q: Tensor, k: Tensor, v: Tensor, is_causal: bool = False, scale: float | None = None) -> Tensor:
    """Running maximum over tiles of 32 keys, wide inside."""
    with torch.autocast(q.device.type, enabled=False):
        q, k, v = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (q, k, v))
        factor = 1 / math.sqrt(q.size(-1)) if scale is None else scale
        i = torch.arange(q.size(2), device=q.device)[:, None]
        m = torch.full_like(q[..., :1], -math.inf)
        total, out = torch.zeros_like(m), torch.zeros_like(m)
        for left in range(0, k.size(2), 32):
            s = q @ k[:, :, left : left + 32].mT * factor
            if is_causal:
                s = s.masked_fill(i < torch.arange(left, left + s.size(-1), device=q.device), -math.inf)
            new = torch.maximum(m, s.detach().amax(-1, keepdim=True))  # finite: every query sees the first key
            e, shrink = torch.exp(s - new), torch.exp(m - new)
            total = total * shrink + e.sum(-1, keepdim=True)
            out, m = out * shrink + e @ v[:, :, left : left + 32], new
        return out / total


def _like_matmul(out: Tensor, q: Tensor) -> Tensor:
    """To the dtype that a matmul of q returns."""
    auto = torch.is_autocast_enabled(q.device.type) and q.dtype != torch.float64
    return out.to(torch.get_autocast_dtype(q.device.type) if auto else q.dtype)


def reference(q, k, v, *, is_causal=False, scale=None) -> Tensor:
    """Original without restrictions."""
    return _eager(q, k, v, is_causal, scale)


def kernel(q, k, v, *, is_causal=False, scale=None) -> Tensor:
    """Right everywhere: torch's kernel."""
    return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=scale)


def tiled(q, k, v, *, is_causal=False, scale=None) -> Tensor:
    """Right everywhere: tiles with a running maximum."""
    return _like_matmul(_tiled(q, k, v, is_causal, scale), q)


# --- candidates with a domain, for `reference`


def sizes_and_halves(q, k, v, *, is_causal=False, scale=None) -> Tensor:
    """Right where it runs: some head sizes, half precision only."""
    assert q.size(-1) in (16, 32, 64, 128, 256), f"unsupported head size {q.size(-1)}"
    assert q.dtype in HALVES, f"unsupported dtype {q.dtype}"
    return tiled(q, k, v, is_causal=is_causal, scale=scale)


def whole_blocks(q, k, v, *, is_causal=False, scale=None) -> Tensor:
    """Right where it runs: lengths that are multiples of 64."""
    if q.size(2) % 64 or k.size(2) % 64:
        raise ValueError(f"lengths must be multiples of 64, not {q.size(2)} and {k.size(2)}")
    s = (q.unflatten(2, (-1, 64)) @ k.unsqueeze(2).mT) * (q.size(-1) ** -0.5 if scale is None else scale)
    if is_causal:
        s = s.masked_fill(_later(q.size(2), k.size(2), q.device).unflatten(0, (-1, 64)), -math.inf)
    return (s.softmax(-1) @ v.unsqueeze(2)).flatten(2, 3)


def equal_lengths(q, k, v, *, is_causal=False, scale=None) -> Tensor:
    """Right where it runs: as many queries as keys."""
    if q.shape[:3] != k.shape[:3]:
        raise NotImplementedError("only self-attention: q and k must be of one length")
    return kernel(q, k, v, is_causal=is_causal, scale=scale)


def causal_only(q, k, v, *, is_causal=False, scale=None) -> Tensor:
    """Right where it runs: causal attention."""
    if not is_causal:
        raise NotImplementedError("only is_causal=True is implemented")
    return tiled(q, k, v, is_causal=True, scale=scale)


def sixteen_at_least(q, k, v, *, is_causal=False, scale=None) -> Tensor:
    """Right where it runs: sixteen queries and keys at least."""
    if min(q.size(2), k.size(2)) < 16:
        raise RuntimeError("tl.dot needs at least 16 rows")
    return tiled(q, k, v, is_causal=is_causal, scale=scale)


def two_conditions(q, k, v, *, is_causal=False, scale=None) -> Tensor:
    """Right where it runs: heads of 64 or 128, and lengths that are multiples of 16."""
    assert q.size(-1) in (64, 128), "head size must be 64 or 128"
    assert q.size(2) % 16 == 0, "the number of queries must be a multiple of 16"
    assert k.size(2) % 16 == 0, "the number of keys must be a multiple of 16"
    return tiled(q, k, v, is_causal=is_causal, scale=scale)


# --- originals with a domain


def original_sizes(q, k, v, *, is_causal=False, scale=None) -> Tensor:
    """Original: heads of 16, 32, 64 or 128."""
    if q.size(-1) not in (16, 32, 64, 128):
        raise ValueError(f"head size {q.size(-1)} is none of 16, 32, 64, 128")
    return _eager(q, k, v, is_causal, scale)


def original_blocks(q, k, v, *, is_causal=False, scale=None) -> Tensor:
    """Original: lengths that are multiples of 64."""
    assert not any(t.size(2) % 64 for t in (q, k)), "whole blocks of 64 only"
    return _eager(q, k, v, is_causal, scale)


def original_halves(q, k, v, *, is_causal=False, scale=None) -> Tensor:
    """Original: float16 and bfloat16."""
    if q.dtype not in HALVES:
        raise TypeError(f"{q.dtype} is not supported, only float16 and bfloat16")
    return _eager(q, k, v, is_causal, scale)


def original_no_double(q, k, v, *, is_causal=False, scale=None) -> Tensor:
    """Original: float32 and below."""
    assert q.dtype != torch.float64, "float64 is not supported"
    return _eager(q, k, v, is_causal, scale)


def original_casts(q, k, v, *, is_causal=False, scale=None) -> Tensor:
    """Original: whatever comes is computed in float32, float64 too."""
    with torch.autocast(q.device.type, enabled=False):
        return _eager(q.float(), k.float(), v.float(), is_causal, scale).to(q.dtype)


def casts_as_well(q, k, v, *, is_causal=False, scale=None) -> Tensor:
    """Right for `original_casts`: float32 as well, but in tiles."""
    return _tiled(q.float(), k.float(), v.float(), is_causal, scale).to(q.dtype)


def original_equal(q, k, v, *, is_causal=False, scale=None) -> Tensor:
    """Original: as many queries as keys."""
    if q.size(2) != k.size(2):
        raise ValueError("q and k must be of one length")
    return _eager(q, k, v, is_causal, scale)


def original_causal(q, k, v, *, is_causal=False, scale=None) -> Tensor:
    """Original: causal attention."""
    if not is_causal:
        raise NotImplementedError("this attention is causal")
    return _eager(q, k, v, True, scale)


def original_sixteen(q, k, v, *, is_causal=False, scale=None) -> Tensor:
    """Original: sixteen queries and keys at least."""
    if q.size(2) < 16 or k.size(2) < 16:
        raise ValueError("sequences shorter than 16 are not supported")
    return _eager(q, k, v, is_causal, scale)


def original_two(q, k, v, *, is_causal=False, scale=None) -> Tensor:
    """Original: heads of 64 or 128, and lengths that are multiples of 16."""
    if q.size(-1) not in (64, 128) or q.size(2) % 16 or k.size(2) % 16:
        raise ValueError("needs a head size of 64 or 128 and lengths divisible by 16")
    return _eager(q, k, v, is_causal, scale)


# --- modules


class Module(nn.Module):
    """Original without restrictions; causal."""

    def __init__(self, config):
        super().__init__()
        self.qkv, self.out = nn.Linear(config.n_embd, 3 * config.n_embd), nn.Linear(config.n_embd, config.n_embd)
        self.n_head, self.drop = config.n_head, nn.Dropout(config.resid_pdrop)

    def check(self, q):
        pass

    def core(self, q, k, v):
        return _eager(q, k, v, True)

    def forward(self, x):
        q, k, v = (t.unflatten(-1, (self.n_head, -1)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        self.check(q)
        return self.drop(self.out(self.core(q, k, v).transpose(1, 2).flatten(2)))


class ModuleOfSizes(Module):
    """Right where it runs: some head sizes, and lengths that are multiples of eight."""

    def check(self, q):
        assert q.size(-1) in (16, 32, 64, 128), "head size"
        assert q.size(2) % 8 == 0, "length"

    def core(self, q, k, v):
        return tiled(q, k, v, is_causal=True)


class BlockModule(Module):
    """Original: lengths that are multiples of sixteen."""

    def check(self, q):
        if q.size(2) % 16:
            raise ValueError("the length must be a multiple of 16")


class BlockModuleKernel(BlockModule):
    """Right for `BlockModule`: the same lengths, torch's kernel."""

    def core(self, q, k, v):
        return kernel(q, k, v, is_causal=True)
