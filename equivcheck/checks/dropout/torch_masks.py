"""The masks that torch's own dropouts draw on a device, for comparison: not all of its generators are fully random.

This module showed two faults: in half precision on CUDA, `F.dropout` gives half of a mask again in its next call, and
the cuDNN kernel of `F.scaled_dot_product_attention` shares a mask over queries (torch 2.11; `benchmarks/masks.py`).
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from equivcheck.cases.case import Case
from equivcheck.checks.dropout.attention_layers import one_hot
from equivcheck.runtime.kernel_trace import KERNELS

__all__ = ["drawn_by_torch", "kernel_mask"]


def drawn_by_torch(what: str, case: Case, rate: float, device: torch.device, calls: int) -> Iterator[Tensor]:
    """Draw masks of successive calls by each kernel, for probabilities alone, and by `F.dropout`.

    `F.dropout` draws the mask of a call at once, and for probabilities also head by head and sample by sample, as
    right attentions do that loop over these.

    Args:
        what: "probabilities" or "outputs".
        case: Sizes and dtype; the kernels are left out if T is more than D.
        rate: The rate.
        device: The device.
        calls: The number of calls.

    Yields:
        Masks (calls, B, H, T, T) of probabilities, or (calls, B, 1, T, C) of outputs.
    """
    c = case.but(attn_pdrop=rate)
    shape = (c.batch_size, 1, c.seq_len, c.n_embd)
    if what == "probabilities":
        shape = (c.batch_size, c.n_head, c.seq_len, c.seq_len)
        for backend in KERNELS.values() if c.seq_len <= c.head_size else ():  # else one call does not show a mask
            with suppress(RuntimeError):  # not a kernel for this dtype, size or device
                yield torch.stack([kernel_mask(c, device, backend) for _ in range(calls)])
    ones = torch.ones(shape, dtype=c.torch_dtype, device=device)
    loops: list[tuple[int, ...]] = [()] if what == "outputs" else [(), (1,), (0,), (0, 1)]
    for loop in loops:
        yield torch.stack([_dropped(ones, rate, loop) != 0 for _ in range(calls)])


def _dropped(x: Tensor, rate: float, loop: Sequence[int]) -> Tensor:
    """The dropout of x, by one call for each index of the dimensions in `loop`."""
    if not loop:
        return F.dropout(x.contiguous(), rate)  # as a loop computes it; what is strided has another kernel
    first, *others = loop
    # `split` keeps the dimension, so that the numbers of the others stay
    return torch.cat([_dropped(part, rate, others) for part in x.split(1, first)], first)


def kernel_mask(case: Case, device: torch.device, backend: SDPBackend) -> Tensor:
    """Return the probabilities that one kernel keeps, (B, H, T, T), for T up to D.

    Raises:
        RuntimeError: The kernel does not run here.
    """
    shape = (case.batch_size, case.n_head, case.seq_len, case.head_size)
    q = torch.zeros(shape, dtype=case.torch_dtype, device=device, requires_grad=True)
    v = one_hot(0, case.seq_len, case.head_size, like=q).expand(shape).contiguous().requires_grad_()
    with sdpa_kernel(backend), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the reasons why a kernel does not run
        weights = F.scaled_dot_product_attention(q, q, v, dropout_p=case.attn_pdrop, is_causal=case.is_causal)
    return weights.detach()[..., : case.seq_len] != 0
