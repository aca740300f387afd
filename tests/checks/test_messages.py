"""What a check says of what it finds, and where it accuses nobody."""

from typing import Any

import pytest
import torch
from check_cases import BY_NAME, FAULT, PLAIN, case_of, pair
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS
from equivcheck.checks.base.compare_all import compare_all
from equivcheck.errors import Mismatch
from equivcheck.numerics.truth import Sample, Truth
from equivcheck.pairs.resolve import resolve


def mismatch(check: str, candidate: Any, case: Case | None = None) -> str:
    with pytest.raises(Mismatch) as seen:
        BY_NAME[check].run(pair(candidate), case or case_of(check))
    return str(seen.value)


def test_an_attribute_of_another_value_is_named_with_both() -> None:
    class Sized(CausalSelfAttention):
        size = 3

        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.said = self.size

    class OtherwiseSized(Sized):
        size = 7

    with pytest.raises(Mismatch, match="attribute 'said' is 7, and 3 in the original"):
        BY_NAME["interface"].run(resolve(Sized, OtherwiseSized, kind="module", device="cpu"), PLAIN)


def test_a_gradient_that_the_original_does_not_have_is_named() -> None:
    class Unused(CausalSelfAttention):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            self.spare = nn.Parameter(torch.ones(1))

    class Used(Unused):
        def forward(self, x: Tensor) -> Tensor:
            y = super().forward(x)
            return y + (self.spare - self.spare.detach()) * y.detach()

    with pytest.raises(Mismatch, match="grad spare: the candidate has one, and the original has none"):
        BY_NAME["gradients"].run(resolve(Unused, Used, kind="module", device="cpu"), PLAIN)


def test_a_message_tells_three_tensors_and_names_the_rest() -> None:
    message = mismatch("gradients", FAULT["scale-missing"].attention)
    assert message.count("times further from the oracle") == 3
    assert "and so are: grad " in message


def test_a_single_position_has_nothing_after_it() -> None:
    held = BY_NAME["causality"].run(pair(), PLAIN.but(seq_len=1))
    assert held.ratio == 0.0


def test_two_perturbed_runs_that_meet_on_one_number_accuse_nobody() -> None:
    problem = pair().problem(PLAIN.but(seq_len=9, dtype="float64"))
    moved = problem.truth(gradients=True)

    def met(count: int) -> Sample:  # the first runs have moved nothing, by chance
        deviations = moved.sample(refined=count == moved.many).deviations
        return Sample(count, {k: d * 0 if count == moved.first else d for k, d in deviations.items()})

    truth = Truth(moved.values, met, first=moved.first, many=moved.many)
    got, wrong = moved.values["output"].clone(), moved.values["output"].clone()
    at = (0, 8, 0)
    spread = float(moved.sample(refined=True).deviations["output"][:, 0, 8, 0].std())
    got[at] += spread / 4
    wrong[at] += 1e6 * spread
    assert compare_all(problem, truth, {"output": got}, dict, ["output"]).ratio <= 1.0  # type: ignore[operator]  # it has one
    with pytest.raises(Mismatch):
        compare_all(problem, truth, {"output": wrong}, dict, ["output"])


class OnlyDenseRows(FlashCausalSelfAttention):
    """Loud where the last dimension is strided, as kernels are."""

    def forward(self, x: Tensor) -> Tensor:
        if x.stride(-1) != 1 and x.size(-1) > 1:
            raise RuntimeError("rows must be dense")
        return super().forward(x)


def test_a_refused_layout_is_a_finding_unless_the_original_refuses_it() -> None:
    case = Case(batch_size=2, seq_len=5, n_head=2, head_size=4, block_size=6)
    check = next(c for c in CHECKS if c.name == "layouts")
    with pytest.raises(Mismatch, match=r"inputs: strided: the candidate raises RuntimeError: rows must be dense"):
        check.run(resolve(CausalSelfAttention, OnlyDenseRows, kind="module", device="cpu"), case)
    held = check.run(resolve(OnlyDenseRows, OnlyDenseRows, kind="module", device="cpu"), case)
    assert "inputs: strided: not judged where the original itself raises RuntimeError" in held.notes
    assert held.judged
