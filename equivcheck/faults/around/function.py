"""Faults around any function of q, k, v."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.faults.around.edits import half_off, last_off, spelled_out, swapped
from equivcheck.faults.gradient_edits import rewritten

__all__ = ["FUNCTIONS", "around_function"]

Function = Callable[..., Tensor]


def around_function(function: Function, plant: Callable[..., Tensor], *tensors: Tensor, **options: Any) -> Tensor:
    return plant(function, *tensors, **options)


def _output(change: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    def planted_function(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        return change(f(q, k, v, **options))

    return planted_function


def _late_off(y: Tensor) -> Tensor:
    late = torch.arange(y.size(-2), device=y.device).unsqueeze(-1) >= 64
    return torch.where(late, y * 1.05, y)


def _past_1024_off(y: Tensor) -> Tensor:
    late = torch.arange(y.size(-2), device=y.device).unsqueeze(-1) >= 1024
    return torch.where(late, y * 1.01, y)


def _toward_zero(y: Tensor) -> Tensor:
    if torch.finfo(y.dtype).bits != 16:
        return y
    bits = y.detach().contiguous().view(torch.int16)
    return y + (torch.where(y.detach() == 0, bits, bits - 1).view(y.dtype) - y.detach())


def _leak(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return f(q, k, v, **options) + 0.01 * F.pad(v[..., 1:, :], (0, 0, 0, 1))


def _gradient(which: int, factor: float) -> Callable[..., Tensor]:
    def planted_function(f: Function, *qkv: Tensor, **options: Any) -> Tensor:
        parts = list(qkv)
        parts[which] = rewritten(parts[which], lambda g: g * factor)
        return f(*parts, **options)

    return planted_function


def _scale_ignored(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return f(q, k, v, **(options | {"scale": q.size(-1) ** -0.5}))


def _scale_left_out_is_one(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return f(q, k, v, **({"scale": 1.0} | options))


def _in_a_tuple(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Any:
    return f(q, k, v, **options), None


def _dropout_ignored(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return f(q, k, v, **(options | {"dropout_p": 0.0}))


def _dropout_left_on(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return f(q, k, v, **(options | {"dropout_p": max(0.1, options["dropout_p"])}))


def _first_head(y: Tensor) -> Tensor:
    return y[:, :1].expand_as(y).clone()


def _in_place(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    y = f(q, k, v, **options)
    q.data.mul_(1.01)
    return y


def _generator_drawn(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    torch.rand((), device=q.device)
    return f(q, k, v, **options)


def _mask_of_the_batch_shared(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    if options["dropout_p"] == 0:
        return f(q, k, v, **options)
    return f(q[:1], k[:1], v[:1], **options).expand_as(q).clone() + f(q, k, v, **(options | {"dropout_p": 0.0})) * 0


def _mask_ignored(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    return f(q, k, v, **{name: value for name, value in options.items() if name != "attn_mask"})


def _mask_inverted(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    mask = options.get("attn_mask")
    inverted = {"attn_mask": ~mask} if mask is not None and mask.dtype is torch.bool else {}
    return f(q, k, v, **(options | inverted))


def _mask_of_the_first_head(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    mask = options.get("attn_mask")
    first = {} if mask is None or mask.dim() < 4 else {"attn_mask": mask[:, :1]}
    return f(q, k, v, **(options | first))


def _mask_detached(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    mask = options.get("attn_mask")
    return f(q, k, v, **(options | ({} if mask is None else {"attn_mask": mask.detach()})))


def _heads_tiled(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    group = q.size(1) // k.size(1)
    return f(q, k.repeat(1, group, 1, 1), v.repeat(1, group, 1, 1), **options)


def _keys_past_the_queries_ignored(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    T, mask = q.size(-2), options.get("attn_mask")
    if k.size(-2) <= T:
        return f(q, k, v, **options)
    if mask is not None:
        options = options | {"attn_mask": mask[..., :T]}
    return f(q, k[..., :T, :], v[..., :T, :], **options)


def _other_corner(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    y = f(q, k, v, **options)
    more = k.size(-2) - q.size(-2)
    if more <= 0 or not options.get("is_causal") or options.get("attn_mask") is not None:
        return y
    first = f(F.pad(q, (0, 0, more, 0)), k, v, **options)[..., more:, :]  # as if the queries were the last ones
    last = f(F.pad(q, (0, 0, 0, more)), k, v, **options)[..., : q.size(-2), :]
    nearer = (y - first).abs().sum() < (y - last).abs().sum()
    return last if bool(nearer) else first


def _positional_names(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    raise TypeError("planted: this function cannot be called by the names of the contract")


FUNCTIONS = (
    ("outputs-scaled-by-one-in-65536", ("output",), _output(lambda y: y * (1 + 2.0**-16))),
    ("outputs-through-float32", ("output",), _output(lambda y: y.float().to(y.dtype))),
    ("half-precision-wrong", ("output",), _output(half_off)),
    ("one-unit-toward-zero", ("bias",), _output(_toward_zero)),
    ("last-token-two-percent-off", ("output",), _output(last_off)),
    ("tokens-past-64-off", ("output",), _output(_late_off)),
    ("tokens-past-1024-off", ("long",), _output(_past_1024_off)),
    ("last-two-tokens-swapped", ("output", "causality"), _output(swapped)),
    ("first-head-for-all", ("output",), _output(_first_head)),
    ("leak-from-the-next-token", ("causality", "output"), _leak),
    ("gradient-of-q-one-percent-off", ("gradients",), _gradient(0, 1.01)),
    ("gradient-of-k-lost", ("gradients",), _gradient(1, 0.0)),
    ("gradient-of-v-halved", ("gradients",), _gradient(2, 0.5)),
    ("scale-ignored", ("output", "gradients"), _scale_ignored),
    ("scale-left-out-is-one", ("output", "gradients"), _scale_left_out_is_one),
    ("returned-in-a-tuple", ("output",), _in_a_tuple),
    ("dropout-ignored", ("dropout",), _dropout_ignored),
    ("dropout-left-on", ("output", "purity"), _dropout_left_on),
    ("mask-shared-over-the-batch", ("dropout",), _mask_of_the_batch_shared),
    ("input-modified-in-place", ("purity",), _in_place),
    ("generator-drawn-from", ("purity",), _generator_drawn),
    ("mask-ignored", ("output",), _mask_ignored),
    ("boolean-mask-inverted", ("output",), _mask_inverted),
    ("mask-of-the-first-head-for-all", ("output",), _mask_of_the_first_head),
    ("gradient-of-an-additive-mask-lost", ("gradients",), _mask_detached),
    ("grouped-heads-tiled", ("output",), _heads_tiled),
    ("keys-past-the-queries-ignored", ("output",), _keys_past_the_queries_ignored),
    ("causal-mask-at-the-other-corner", ("output",), _other_corner),
    ("call-refused", ("output", "interface"), _positional_names),
    ("softmax-spelled-out", ("backend",), _output(spelled_out)),
)
