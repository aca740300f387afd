"""What a pass may not write to: inputs, upstream gradients and weights; what was written is put back."""

from typing import Any

import pytest
import torch
from searches import BY_NAME, CASE, changing, different, smallest
from torch import Tensor

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.errors import Mismatch
from equivcheck.pairs.resolve import resolve
from equivcheck.pairs.sides import CANDIDATE, running
from equivcheck.pairs.write_guard import Overwritten


class OverwritesLate(FlashCausalSelfAttention):
    """Writes to its input under no_grad, past 64 positions."""

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        if x.size(1) > 64 and not torch.is_grad_enabled():
            x.detach()[:, -1].zero_()
        return y


class OriginalOverwrites(CausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        if not torch.is_grad_enabled():
            x.mul_(2)
        return y


class OverwritesUpstream(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return y.clone()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        kept = g.clone()
        g.zero_()
        return kept


class OverwritesWeights(FlashCausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = super().forward(x)
        self.proj.weight.data.mul_(1.0 + 2.0**-20)
        return y


def test_an_input_that_is_overwritten_is_a_finding_at_every_length() -> None:
    case, message = smallest(CausalSelfAttention, OverwritesLate)
    assert message.startswith("x was overwritten: ")
    assert case.seq_len == 65


@pytest.mark.parametrize("check", ["output", "gradients", "batching", "lengths", "layouts", "purity"])
def test_an_upstream_gradient_or_a_weight_that_is_overwritten_is_a_finding(check: str) -> None:
    case = CASE.but(seq_len=300, block_size=300) if check == "lengths" else CASE
    for candidate, name in (
        (changing(OverwritesUpstream.apply), "upstream output"),
        (OverwritesWeights, "proj.weight"),
    ):
        if check == "output" and name.startswith("upstream"):
            continue  # it has one backward pass in three, and that is its last
        subject = resolve(CausalSelfAttention, candidate, kind="module", device="cpu")
        with pytest.raises(Mismatch) as caught:
            BY_NAME[check].run(subject, case)
        assert name in str(caught.value)


def test_what_the_original_overwrites_too_is_put_back_and_no_finding() -> None:
    problem = resolve(OriginalOverwrites, OriginalOverwrites, kind="module", device="cpu").problem(CASE)
    before = problem.inputs[0].clone()
    problem.run(problem.reference, problem.inputs, gradients=False)
    assert torch.equal(problem.inputs[0], before)
    assert not different(OriginalOverwrites, OriginalOverwrites)
    assert not different(OriginalOverwrites, FlashCausalSelfAttention)


def test_what_was_written_before_an_exception_is_put_back() -> None:
    class WritesAndRaises(CausalSelfAttention):
        def forward(self, x: Tensor) -> Tensor:
            x.detach().zero_()
            raise RuntimeError("after writing")

    problem = resolve(CausalSelfAttention, WritesAndRaises, kind="module", device="cpu").problem(CASE)
    before = problem.inputs[0].clone()
    for gradients in (False, True):
        with pytest.raises(RuntimeError, match="after writing"):
            problem.run(problem.candidate, problem.inputs, gradients=gradients)
        assert torch.equal(problem.inputs[0], before)


def test_putting_back_keeps_layouts_and_the_parameters_what_they_are() -> None:
    subject = resolve(CausalSelfAttention, OverwritesWeights, kind="module", device="cpu")
    problem = subject.problem(CASE.but(layout="transposed"))
    module = problem.candidate
    weight, x = module.get_parameter("proj.weight"), problem.inputs[0]
    values_before, strides = weight.detach().clone(), x.stride()
    with pytest.raises(Overwritten), running(CANDIDATE):
        problem.run(module, problem.inputs, gradients=True)
    assert module.get_parameter("proj.weight") is weight
    assert torch.equal(weight, values_before)
    assert problem.inputs[0] is x
    assert x.stride() == strides
