"""Kernels are read off what ran."""

from typing import Any

import torch
import torch.nn.functional as F

from equivcheck.runtime.kernel_trace import kernels_of


def test_kernels_are_read_off_what_ran() -> None:
    q = torch.randn(1, 2, 16, 8)

    def spelled_out() -> Any:
        return torch.softmax(q @ q.mT, -1) @ q

    def fused() -> Any:
        return F.scaled_dot_product_attention(q, q, q, is_causal=True)

    def dropping() -> Any:
        return F.scaled_dot_product_attention(q, q, q, dropout_p=0.5, is_causal=True)

    assert kernels_of(spelled_out) == ("spelled out",)
    assert kernels_of(fused) == ("flash",)
    assert kernels_of(dropping) == ("math",)
    assert kernels_of(lambda: (fused(), spelled_out())) == ("flash", "spelled out")
    assert kernels_of(lambda: q + 1) == ("none known",)


def test_kernels_of_backward_passes_are_read_off_and_named_once() -> None:
    q = torch.randn(1, 2, 16, 8, requires_grad=True)
    found = kernels_of(lambda: F.scaled_dot_product_attention(q, q, q, is_causal=True).sum().backward())
    assert found == ("flash",)
