"""The attention inside of an original, wherever it is: its products are found in a run, and changed in later runs.

A product of queries and keys, whose result multiplies the values after whatever the original does to it, is an
attention; so is a call of torch's `scaled_dot_product_attention`. The code of the original stays as it is.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from torch.overrides import resolve_name

__all__ = [
    "AS_IT_IS",
    "Carrier",
    "Core",
    "Edit",
    "expanded",
    "is_product",
    "is_whole",
    "name_of",
    "operands",
    "spelled_out",
    "whole_arguments",
]

_PRODUCTS = ("matmul", "__matmul__", "__rmatmul__", "bmm", "baddbmm", "einsum")


def _same(x: Tensor, core: "Core") -> Tensor:
    return x


@dataclass(frozen=True)
class Core:
    """One attention in a run.

    Attributes:
        scores: (..., T, S), the products of queries and keys as the original computed them.
        scale: The factor of the scores in the softmax, if the probabilities are a softmax of scaled scores; else None.
    """

    scores: Tensor
    scale: float | None


@dataclass(frozen=True)
class Edit:
    """What is changed: each function takes a tensor and the attention that it belongs to, and returns the changed one.

    Attributes:
        queries: Of the queries, (..., T, D).
        keys: Of the keys, (..., S, D).
        values: Of the values, (..., S, Dv).
        scores: Of the products of queries and keys, (..., T, S).
        probabilities: Of the probabilities after everything that the original does to them, (..., T, S).
        output: Of the product of probabilities and values.
    """

    queries: Callable[[Tensor], Tensor] = field(default=lambda x: x)
    keys: Callable[[Tensor], Tensor] = field(default=lambda x: x)
    values: Callable[[Tensor], Tensor] = field(default=lambda x: x)
    scores: Callable[[Tensor, Core], Tensor] = _same
    probabilities: Callable[[Tensor, Core], Tensor] = _same
    output: Callable[[Tensor], Tensor] = field(default=lambda x: x)


AS_IT_IS = Edit()


@dataclass
class Carrier:
    """Where the attentions of an original are, by the numbers of its products.

    Attributes:
        first: The number of the product of queries and keys -> that of the product with the values.
        whole: The numbers of the calls of `scaled_dot_product_attention`, which count as products.
        scales: The number of a product of queries and keys, or of such a call -> the scale, if it is known.
        groups: The greatest number of neighbouring heads of queries that read one head of keys.
        heads: The number of heads; 0 if it is not known.
        band: The greatest number of keys that a query sees.
        causal: Whether no query sees a key past its position, counted from the end or from the start.
    """

    first: dict[int, int] = field(default_factory=dict)
    whole: set[int] = field(default_factory=set)
    scales: dict[int, float | None] = field(default_factory=dict)
    groups: int = 1
    heads: int = 0
    band: int = 0
    causal: bool = True

    def __bool__(self) -> bool:
        return bool(self.first or self.whole)

    @property
    def spelled(self) -> bool:
        """Whether each attention is a softmax of its scaled scores over the visible keys, and of nothing else."""
        return bool(self) and all(scale is not None for scale in self.scales.values())


def name_of(function: Any) -> str:
    return str(resolve_name(function) or getattr(function, "__name__", "")).rpartition(".")[2]


def is_whole(function: Any) -> bool:
    return function is F.scaled_dot_product_attention


def is_product(function: Any, arguments: tuple[Any, ...]) -> bool:
    return name_of(function) in _PRODUCTS and not (
        name_of(function) == "einsum" and len(operands(function, arguments)) != 2
    )


def operands(function: Any, arguments: tuple[Any, ...]) -> list[int]:
    """The places of the two factors among the arguments."""
    tensors = [at for at, x in enumerate(arguments) if isinstance(x, Tensor)]
    return tensors[-2:] if name_of(function) == "baddbmm" else tensors


def spelled_out(scores: Tensor, seen: Tensor, scale: float) -> Tensor:
    """The softmax of scaled scores over the keys that are seen; zeros for a query that sees none."""
    none = ~seen.any(-1, keepdim=True)
    p = (scores * scale).masked_fill(~(seen | none), -math.inf).softmax(-1)
    return p.masked_fill(none, 0.0)


def whole_arguments(args: tuple[Any, ...], options: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments of `scaled_dot_product_attention`: q, k, v, mask, rate, causal, scale."""
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal", "scale", "enable_gqa")
    given = dict(zip(names, args, strict=False)) | options
    q, k, v = given["query"], given["key"], given["value"]
    scale = given.get("scale")
    return (
        q,
        k,
        v,
        given.get("attn_mask"),
        given.get("dropout_p", 0.0),
        given.get("is_causal", False),
        q.size(-1) ** -0.5 if scale is None else scale,
    )


def expanded(x: Tensor, q: Tensor) -> Tensor:
    """Keys or values with as many heads as the queries."""
    group = q.size(-3) // x.size(-3) if q.dim() > 2 and x.dim() > 2 else 1
    return x.repeat_interleave(group, dim=-3) if group > 1 else x
