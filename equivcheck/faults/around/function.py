"""Faults around any function of q, k, v."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivcheck.faults.around import edits
from equivcheck.faults.base import NOT_BFLOAT16, WIDE, Fault
from equivcheck.faults.gradient_edits import rewritten
from equivcheck.numerics.dtypes import HALF
from equivcheck.report.levels import TRAINING

__all__ = ["FUNCTIONS", "edited_result"]

Function = Callable[..., Tensor]


def around_function(function: Function, wrong: Callable[..., Any]) -> Callable[..., Any]:
    """A function whose calls go to `wrong`, with the function itself, the same tensors and the same options."""
    return partial(_called, function, wrong)


def _called(function: Function, wrong: Callable[..., Any], *tensors: Tensor, **options: Any) -> Any:
    return wrong(function, *tensors, **options)


def edited_result(function: Function, edit: Callable[[Tensor], Tensor]) -> Function:
    """A function whose results are edited."""
    return partial(_edited, function, edit)


def _edited(function: Function, edit: Callable[[Tensor], Tensor], *tensors: Tensor, **options: Any) -> Tensor:
    return edit(function(*tensors, **options))


def leak_from_the_next_token(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """A hundredth of the next token's value is added to each output."""
    return f(q, k, v, **options) + 0.01 * F.pad(v[..., 1:, :], (0, 0, 0, 1))


def _with_gradient(which: int, factor: float, f: Function, *qkv: Tensor, **options: Any) -> Tensor:
    parts = list(qkv)
    parts[which] = rewritten(parts[which], lambda g: g * factor)
    return f(*parts, **options)


def gradient_of_q_one_percent_off(f: Function, *qkv: Tensor, **options: Any) -> Tensor:
    """The gradient of the queries is 1 % too large."""
    return _with_gradient(0, 1.01, f, *qkv, **options)


def gradient_of_k_lost(f: Function, *qkv: Tensor, **options: Any) -> Tensor:
    """No gradient reaches the keys."""
    return _with_gradient(1, 0.0, f, *qkv, **options)


def gradient_of_v_halved(f: Function, *qkv: Tensor, **options: Any) -> Tensor:
    """The values get half of their gradient."""
    return _with_gradient(2, 0.5, f, *qkv, **options)


def scale_ignored(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """The scale is 1/sqrt(D), even if another one is given."""
    return f(q, k, v, **(options | {"scale": q.size(-1) ** -0.5}))


def scale_left_out_is_one(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """No scale is applied if none is given."""
    return f(q, k, v, **({"scale": 1.0} | options))


def returned_in_a_tuple(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Any:
    """The result is the first of a tuple."""
    return f(q, k, v, **options), None


def dropout_ignored(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """Nothing is ever dropped."""
    return f(q, k, v, **(options | {"dropout_p": 0.0}))


def dropout_left_on(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """A tenth is dropped at rates below 0.1."""
    return f(q, k, v, **(options | {"dropout_p": max(0.1, options["dropout_p"])}))


def mask_shared_over_the_batch(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """Under dropout all samples get the output of the first."""
    if options["dropout_p"] == 0:
        return f(q, k, v, **options)
    return f(q[:1], k[:1], v[:1], **options).expand_as(q).clone() + f(q, k, v, **(options | {"dropout_p": 0.0})) * 0


def input_modified_in_place(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """The queries are multiplied by 1.01 in place after they have been read."""
    y = f(q, k, v, **options)
    q.data.mul_(1.01)
    return y


def generator_drawn_from(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """Each call draws a random number and does not use it."""
    torch.rand((), device=q.device)
    return f(q, k, v, **options)


def mask_ignored(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """The mask is left out."""
    return f(q, k, v, **{name: value for name, value in options.items() if name != "attn_mask"})


def boolean_mask_inverted(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """A boolean mask hides the keys that it should show."""
    mask = options.get("attn_mask")
    inverted = {"attn_mask": ~mask} if mask is not None and mask.dtype is torch.bool else {}
    return f(q, k, v, **(options | inverted))


def mask_of_the_first_head_for_all(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """All heads get the mask of the first."""
    mask = options.get("attn_mask")
    first = {} if mask is None or mask.dim() < 4 else {"attn_mask": mask[:, :1]}
    return f(q, k, v, **(options | first))


def gradient_of_an_additive_mask_lost(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """No gradient reaches the mask."""
    mask = options.get("attn_mask")
    return f(q, k, v, **(options | ({} if mask is None else {"attn_mask": mask.detach()})))


def grouped_heads_tiled(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """Grouped heads of keys and values are repeated as a whole, instead of each for the queries of its group."""
    group = q.size(1) // k.size(1)
    return f(q, k.repeat(1, group, 1, 1), v.repeat(1, group, 1, 1), **options)


def keys_past_the_queries_ignored(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """If there are more keys than queries, only as many keys are read as there are queries."""
    T, mask = q.size(-2), options.get("attn_mask")
    if k.size(-2) <= T:
        return f(q, k, v, **options)
    if mask is not None:
        options = options | {"attn_mask": mask[..., :T]}
    return f(q, k[..., :T, :], v[..., :T, :], **options)


def causal_mask_at_the_other_corner(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """If there are more keys than queries, the causal mask is aligned to the other corner than the original's."""
    y = f(q, k, v, **options)
    more = k.size(-2) - q.size(-2)
    if more <= 0 or not options.get("is_causal") or options.get("attn_mask") is not None:
        return y
    first = f(F.pad(q, (0, 0, more, 0)), k, v, **options)[..., more:, :]  # as if the queries were the last ones
    last = f(F.pad(q, (0, 0, 0, more)), k, v, **options)[..., : q.size(-2), :]
    nearer = (y - first).abs().sum() < (y - last).abs().sum()
    return last if bool(nearer) else first


def call_refused(f: Function, q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
    """Every call is an error."""
    raise TypeError("planted: this function cannot be called by the names of the contract")


_result = partial(Fault.of, around={"function": edited_result})
_call = partial(Fault.of, around={"function": around_function})

FUNCTIONS = (
    _result(edits.outputs_scaled_by_one_in_65536, seen_by=("output",), shows_in=WIDE, size=2.0**-16),
    _result(edits.outputs_through_float32, seen_by=("output",), shows_in=("float64",), size=2.0**-25),
    # ten per cent, which bfloat16 shows in some cases only
    _result(edits.half_precision_wrong, seen_by=("output",), shows_in=("float16",)),
    _result(edits.outputs_one_unit_toward_zero, name="one-unit-toward-zero", seen_by=("bias",), shows_in=HALF),
    _result(edits.last_token_two_percent_off, seen_by=("output",), shows_in=WIDE),
    _result(edits.tokens_past_64_off, seen_by=("output",), shows_in=NOT_BFLOAT16),
    _result(edits.tokens_past_1024_off, seen_by=("long",), shows_in=("float32",)),
    _result(edits.last_two_tokens_swapped, seen_by=("output", "causality")),
    _result(edits.first_head_for_all, seen_by=("output",)),
    _call(leak_from_the_next_token, seen_by=("causality", "output")),
    _call(gradient_of_q_one_percent_off, seen_by=("gradients",), shows_in=WIDE),
    _call(gradient_of_k_lost, seen_by=("gradients",)),
    _call(gradient_of_v_halved, seen_by=("gradients",)),
    _call(scale_ignored, seen_by=("output", "gradients"), needs="scale", shows_in=NOT_BFLOAT16),
    _call(scale_left_out_is_one, seen_by=("output", "gradients"), needs="scale left out"),
    _call(returned_in_a_tuple, seen_by=("output",)),
    _call(dropout_ignored, seen_by=("dropout",), needs="dropout_p"),
    _call(dropout_left_on, seen_by=("output", "purity"), needs="dropout_p"),
    _call(mask_shared_over_the_batch, seen_by=("dropout",), needs="dropout_p"),
    _call(input_modified_in_place, seen_by=("purity",)),
    _call(generator_drawn_from, seen_by=("purity",), wrong_at=TRAINING),
    _call(mask_ignored, seen_by=("output",), needs="boolean"),
    _call(boolean_mask_inverted, seen_by=("output",), needs="boolean"),
    _call(mask_of_the_first_head_for_all, seen_by=("output",), needs="mask by heads"),
    _call(gradient_of_an_additive_mask_lost, seen_by=("gradients",), needs="learned mask"),
    _call(grouped_heads_tiled, seen_by=("output",), needs="heads"),
    _call(keys_past_the_queries_ignored, seen_by=("output",), needs="lengths"),
    _call(causal_mask_at_the_other_corner, seen_by=("output",), needs="causal lengths"),
    _call(call_refused, seen_by=("output", "interface")),
    _result(edits.softmax_spelled_out, seen_by=("backend",)),
    _result(edits.scores_made_a_hundred_times, seen_by=("memory",)),
)
