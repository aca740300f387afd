"""Results besides the first one: compared, with their gradients, or named in a note."""

from typing import Any

import pytest
import torch
from check_cases import PLAIN
from torch import Tensor

from equivcheck.attention import CausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks.base.check import CaseResult
from equivcheck.checks.values import gradients, output
from equivcheck.errors import Mismatch
from equivcheck.pairs.resolve import resolve

CASE = PLAIN.but(seq_len=9, block_size=9, head_size=8)


def both(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    hidden = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).triu(1)
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(hidden, -torch.inf)
    return scores.softmax(-1) @ v, scores.logsumexp(-1)


def right(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    y, lse = both(q, k, v)
    return y * 1.0, lse + 0.0


def in_base_two(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    y, lse = both(q, k, v)
    return y, lse / 0.6931471805599453


def without_gradient(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    y, lse = both(q, k, v)
    return y, lse.detach()


def with_none(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, None]:
    return both(q, k, v)[0], None


def constant(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    y, lse = both(q, k, v)
    return y, lse.detach()


def with_a_number(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    return both(q, k, v)[0], torch.tensor(q.shape[-2])


def with_words(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, str]:
    return both(q, k, v)[0], "flash"


def judged(check: Any, original: Any, candidate: Any, case: Case = CASE) -> CaseResult:
    result = check(resolve(original, candidate, kind="auto", device="cpu"), case)
    assert isinstance(result, CaseResult)
    return result


@pytest.mark.parametrize("check", [output, gradients])
def test_a_right_second_result_is_judged_without_a_note(check: Any) -> None:
    assert not judged(check, both, right).notes


def test_a_log_sum_exp_in_another_base_is_different() -> None:
    for check in (output, gradients):
        with pytest.raises(Mismatch, match="result 2: "):
            judged(check, both, in_base_two)


def test_a_gradient_that_is_lost_in_the_second_result_is_different() -> None:
    judged(output, both, without_gradient)
    with pytest.raises(Mismatch, match=r"result 2: .*grad [qk]"):
        judged(gradients, both, without_gradient)


def test_a_result_that_the_original_detaches_has_no_gradient_to_compare() -> None:
    judged(gradients, constant, both)


@pytest.mark.parametrize(
    ("original", "candidate", "why"),
    [
        (both, with_none, "the candidate returns None in its place"),
        (with_a_number, with_a_number, "in the original, it has numbers of torch.int64"),
        (with_words, with_words, "in the original, the forward pass returned str"),
    ],
)
def test_what_cannot_be_compared_is_named_in_a_note(original: Any, candidate: Any, why: str) -> None:
    (note,) = judged(output, original, candidate).notes
    assert note.startswith(f"result 2 was not compared: {why}")


class WithWeights(CausalSelfAttention):
    """It returns its result and how much of it there is."""

    factor = 1.0

    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        return y, y.square().mean(-1) * self.factor


class WithOtherWeights(WithWeights):
    factor = 1.01


def test_the_second_result_of_a_module_is_judged() -> None:
    judged(output, WithWeights, WithWeights)
    with pytest.raises(Mismatch, match="result 2: "):
        judged(output, WithWeights, WithOtherWeights)
