"""Random inputs, weights and upstream gradients of a case, from its seed and its regime of values."""

import math
from collections.abc import Iterable
from functools import cache, lru_cache

import torch
from torch import Tensor, nn

from equivcheck.cases.case import Case, arrange, generator, tiny_factor
from equivcheck.cases.names import role_of
from equivcheck.numerics.dtypes import dtype_row

__all__ = ["attn_mask", "projections_known", "qkv", "randomise", "sequence", "tokens", "upstream"]

_GAIN = {"near_initial": 1.0, "tiny": 1.0}  # of the query and key projections; scores have its square
_SHARP = 1.8
_LARGE = (6.0, 150.0)  # some scores must exceed 1e4: below it a mask that is a finite number still works


def projections_known(names: Iterable[str]) -> bool:
    """Whether these names of parameters include projections of queries and of keys that their names distinguish."""
    roles = {role_of(name.rpartition(".")[0]) or role_of(name) for name in names}
    return {"q", "k"} <= roles


def randomise(module: nn.Module, case: Case) -> None:
    """Give every parameter a random value: no weight keeps its initial value and no bias is zero.

    Initial weights of minGPT attend almost uniformly, and hide every fault between q and k. So the projections of
    queries and keys, which their usual names identify, get larger weights; without such names the inputs do (see
    `sequence`).
    """
    with torch.no_grad():
        seen: set[int] = set()  # a parameter with two names gets the value of the first
        for path, owner in module.named_modules():
            for name, parameter in owner.named_parameters(path, recurse=False):
                if id(parameter) not in seen:
                    seen.add(id(parameter))
                    parameter.copy_(_weight(case, name, parameter.shape, isinstance(owner, nn.Embedding)))


# a case is built several times in a row: for the reference, the candidate, the oracle and each fault
@lru_cache(maxsize=128)
def _weight(case: Case, full: str, shape: torch.Size, of_tokens: bool) -> Tensor:
    owner_name, _, name = full.rpartition(".")
    draw = torch.randn(shape, generator=generator(case, full), dtype=torch.float64)
    return _shaped(draw, of_tokens, owner_name, name, case)


def _gain(case: Case) -> float:
    return _LARGE[case.seed % len(_LARGE)] if case.regime == "large_scores" else _GAIN.get(case.regime, _SHARP)


def _shaped(draw: Tensor, of_tokens: bool, owner_name: str, name: str, case: Case) -> Tensor:
    role = role_of(owner_name) or role_of(name)
    gain = _gain(case) if role in ("q", "k") else 1.0
    initial = case.regime == "near_initial"
    if draw.dim() < 2:
        if name == "weight":  # of a norm
            return 1.0 + 0.2 * draw
        value = draw * (0.02 if initial else 0.3)
        if case.regime == "tiny":
            value = value * tiny_factor(case.torch_dtype)
        if role == "v":
            value = value + (6.0 if case.regime == "same_sign_v" else 0.0)
            value = value * (
                dtype_row(case.dtype).large_value if case.regime == "near_limit" and not case.n_layer else 1.0
            )
        return value
    if of_tokens or name.endswith("emb"):
        return draw
    if initial:
        return 0.02 * draw
    value = draw * gain / math.sqrt(min(draw.shape[-2:]) if draw.dim() > 2 else draw.shape[-1])
    if role == "v":
        value = value * (0.0 if case.regime == "constant_v" else 1.0)
        value = value * (dtype_row(case.dtype).large_value if case.regime == "near_limit" and not case.n_layer else 1.0)
    return value


def _positions(draw: Tensor, case: Case) -> Tensor:
    """Shape random positions (B, T, C) by the regime."""
    B, T, C = draw.shape
    if case.regime == "ties":
        return draw[:, torch.arange(T) % max(1, min(3, T))]  # equal positions: exactly equal scores
    if case.regime == "one_hot":
        hot = torch.zeros_like(draw)
        where = (5 * torch.arange(T) + torch.arange(B).unsqueeze(1)) % C  # (B, T)
        return hot.scatter_(2, where.unsqueeze(-1), 4.0)
    if case.regime == "zero_rows":
        nonzero = torch.rand(B, T, 1, generator=generator(case, "zero rows"), dtype=torch.float64) < 0.5
        return draw * nonzero
    if case.regime == "tiny":
        return draw * tiny_factor(case.torch_dtype)
    return draw


def sequence(case: Case, *, sharpen: bool) -> Tensor:
    """The input x of a module, (B, T, C), on the CPU.

    Args:
        case: The case.
        sharpen: Whether the input gets the gain of the regime, because the module's projections have no known names.
    """
    shape = (case.batch_size, case.seq_len, case.n_embd)
    x = _positions(torch.randn(shape, generator=generator(case, "x"), dtype=torch.float64), case)
    if sharpen:
        x = x * _gain(case)
        x = x + (3.0 if case.regime == "same_sign_v" else 0.0)
        x = x[:, :1].expand(shape) if case.regime == "constant_v" else x
    return x.to(case.torch_dtype)


def qkv(case: Case) -> tuple[Tensor, Tensor, Tensor]:
    """The inputs of a function on the CPU: q (B, H, T, D), k (B, Hkv, S, D), v (B, Hkv, S, Dv)."""
    B, H, T, D = case.batch_size, case.n_head, case.seq_len, case.head_size
    S, heads, wide = case.kv_len or T, case.kv_heads or H, case.value_size or D
    shapes = {"q": (B, H, T, D), "k": (B, heads, S, D), "v": (B, heads, S, wide)}
    gain = 0.3 if case.regime == "near_initial" else _gain(case)
    parts = []
    for name in "qkv":
        shape = shapes[name]
        draw = torch.randn(B * shape[1], *shape[2:], generator=generator(case, name), dtype=torch.float64)
        part = _positions(draw, case).view(shape)
        if name != "v":
            part = part * gain
        elif case.regime == "constant_v":
            part = part[:, :, :1].expand(part.shape)
        elif case.regime == "same_sign_v":
            part = part + 6.0
        elif case.regime == "near_limit":
            part = part * dtype_row(case.dtype).large_value
        parts.append(part.to(case.torch_dtype))
    return parts[0], parts[1], parts[2]


def attn_mask(case: Case) -> Tensor | None:
    """The mask of a function on the CPU, boolean (True for a visible key) or float64 to be added; None without a mask.

    Its shape is (B, H, T, S), or broadcasts to that.
    """
    if not case.mask:
        return None
    B, T, S = case.batch_size, case.seq_len, case.kv_len or case.seq_len
    source = generator(case, "mask")
    keys = torch.arange(S)
    if case.mask in ("right", "left", "middle"):
        length = torch.randint(1, S + 1, (B, 1, 1, 1), generator=source)
        start = {"right": torch.zeros_like(length), "left": S - length}.get(case.mask)
        if start is None:
            start = (torch.rand(length.shape, generator=source) * (S - length + 1)).long()
        inside = (keys >= start) & (keys < start + length)
        return ~inside | (length == S) if case.mask == "middle" else inside  # (B, 1, 1, S)
    heads = case.n_head if case.mask in ("heads", "bias") else 1
    if case.mask == "bias":
        return torch.randn(B, heads, T, S, generator=source, dtype=torch.float64)
    seen = torch.rand(1 if case.mask == "plane" else B, heads, T, S, generator=source) < 0.7
    if case.mask in ("some", "heads", "plane"):
        seen = seen | (keys == torch.arange(T).unsqueeze(-1) % S)  # every query sees a key
        return seen[0, 0] if case.mask == "plane" else seen
    if case.mask == "rows":
        return seen & (torch.arange(T).unsqueeze(-1) % 3 != 0)
    added = torch.randn(B, 1, T, S, generator=source, dtype=torch.float64)
    if case.mask == "both":
        hidden = ~(seen | (keys == torch.arange(T).unsqueeze(-1) % S))
        added = added.masked_fill(hidden, -math.inf)
    return added


@cache
def _text() -> Tensor:
    """The topics of Python's language reference, which ship with Python, as the ranks of their characters."""
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics))[: 1 << 17]
    rank = {character: i for i, character in enumerate(sorted(set(text)))}
    return torch.tensor([rank[character] for character in text])


def tokens(case: Case) -> tuple[Tensor, Tensor]:
    """Token ids and the ids that follow them, (B, T) each, contiguous, on the CPU, from real text or random.

    The regime `ties` repeats three ids.
    """
    shape = (case.batch_size, case.seq_len + 1)
    source = generator(case, "tokens")
    if case.tokens == "text":
        text = _text()
        starts = torch.randint(len(text) - case.seq_len - 1, (case.batch_size, 1), generator=source)
        ids = text[starts + torch.arange(case.seq_len + 1)] % case.vocab_size
    else:
        ids = torch.randint(case.vocab_size, shape, generator=source)
    if case.regime == "ties":
        ids = ids[:, torch.arange(case.seq_len + 1) % max(1, min(3, case.seq_len))]
    if case.layout == "expanded":
        ids = ids[:1].expand(shape)
    # contiguous, like those of data loaders: thousands of models call view on their targets
    return ids[:, :-1].contiguous(), ids[:, 1:].contiguous()


def upstream(case: Case, name: str, shape: torch.Size) -> Tensor:
    """A random upstream gradient of the output `name`, in the case's layout, on the CPU."""
    draw = torch.randn(shape, generator=generator(case, f"upstream {name}"), dtype=torch.float64)
    return arrange(draw.to(case.torch_dtype), case.layout if draw.dim() > 1 else "contiguous")
