"""What faults are made of: the original in parts, memory that is misread, gradients that are rewritten."""

import torch
from differing import Differs, bf16
from torch import nn

from equivcheck.attention import CausalSelfAttention
from equivcheck.faults.gradient_edits import as_if, rewritten_parameter
from equivcheck.faults.inside.decomposed import Parted
from equivcheck.faults.inside.strides import misread


def test_the_parts_make_the_original_bit_for_bit() -> None:
    for case in (Differs(grads=True), Differs(grads=True, dtype=bf16, T=33), Differs(rate=0.5, training=True)):
        for a, b in zip(case.results(Parted, case.dtype), case.results(CausalSelfAttention, case.dtype), strict=True):
            assert torch.equal(a, b)


def test_memory_is_read_as_if_it_were_contiguous() -> None:
    t = torch.arange(6.0).view(2, 3)
    assert torch.equal(misread(t), t)
    assert torch.equal(misread(t.t()), torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]))
    assert torch.equal(misread(t[1:], offset=0), t[:1])
    assert torch.equal(misread(t[:1, :1].expand(2, 2)), torch.tensor([[0.0, 1.0], [2.0, 3.0]]))
    assert torch.equal(misread(torch.tensor([1.0]).expand(3)), torch.ones(3))


def test_a_value_and_the_gradient_of_something_else() -> None:
    a, b = torch.tensor(0.1, requires_grad=True), torch.tensor(3.0, requires_grad=True)
    t = as_if(a * 2, b * 5)
    assert t.item() == (a * 2).item()
    assert torch.autograd.grad(t, [a, b], allow_unused=True) == (None, torch.tensor(5.0))


def test_a_parameter_keeps_its_place_while_its_gradient_is_rewritten() -> None:
    linear = nn.Linear(2, 2)
    weight = linear.weight
    with rewritten_parameter(linear, "weight", lambda g: g * 3):
        loss = linear(torch.ones(1, 2)).sum()
    loss.backward()
    assert linear.weight is weight
    assert list(linear.state_dict()) == ["weight", "bias"]
    assert torch.equal(weight.grad, torch.full((2, 2), 3.0))
