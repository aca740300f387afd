"""Whether a mask is causal: read once, and again only if it is another tensor or was written to."""

import math
import weakref

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

__all__ = ["is_causal", "is_causal_once", "is_exporting", "while_causal"]

is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_dynamo_compiling)  # torch 2.6 has none

_AT_ONCE = 2**26  # elements

_State = tuple[object, ...]
_seen: dict[int, tuple["weakref.ref[Tensor]", _State, bool]] = {}  # by id, while the tensor lives


def is_causal(mask: Tensor) -> bool:
    """Whether `mask`, (…, K, K), is zero exactly where the key lies in the future of the query.

    The answer is cached for the tensor and not for the module, so that copies, casts, loading and swapped buffers are
    safe. torch counts writes to a tensor, except those through `.data` or through an array that shares its memory:
    after such a write, assign a new tensor.
    """
    if isinstance(mask, FakeTensor):
        return False  # an export that sees no values: it must work with any mask
    if mask.is_meta:
        return True  # there are no values yet
    if mask.is_inference():
        return _look(mask)  # torch does not count writes to these
    state = (mask._version, mask.data_ptr(), mask.shape, mask.dtype, mask.device)
    known = _seen.get(id(mask))
    if known is not None and known[0]() is mask and known[1] == state:
        return known[2]
    causal, key = _look(mask), id(mask)
    _seen[key] = (weakref.ref(mask, lambda _: _seen.pop(key, None)), state, causal)
    return causal


@torch.no_grad()
def _look(mask: Tensor) -> bool:
    *_, K, width = mask.shape
    keys = torch.arange(width, device=mask.device)
    # by blocks of queries: at K = 131072 the whole comparison would take several times the memory of the mask
    for first in range(0, K, max(1, _AT_ONCE // max(1, width))):
        rows = mask[..., first : first + max(1, _AT_ONCE // max(1, width)), :]
        queries = torch.arange(first, first + rows.size(-2), device=mask.device)
        if not torch.equal(rows != 0, (keys <= queries.unsqueeze(-1)).expand_as(rows)):  # (…, queries, K)
            return False
    return True


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch does not annotate it
def is_causal_once(mask: Tensor) -> bool:
    """`is_causal` while torch.compile traces: the answer becomes part of the compiled code, and breaks no graph."""
    return is_causal(mask)


@torch.library.custom_op("equivcheck::still_causal", mutates_args=())
def _still_causal(mask: Tensor) -> Tensor:
    if not is_causal(mask):
        raise RuntimeError(
            "the mask was edited after torch.compile had found it causal: "
            "call torch.compiler.reset() to compile it anew"
        )
    return torch.ones((), dtype=torch.bool, device=mask.device)


@_still_causal.register_fake
def _(mask: Tensor) -> Tensor:
    return torch.empty((), dtype=torch.bool, device=mask.device)


def while_causal(y: Tensor, mask: Tensor) -> Tensor:
    """`y`, in compiled code; each run raises a RuntimeError if the mask is no longer causal."""
    return torch.where(_still_causal(mask), y, math.nan)  # an unused check would be removed
