"""The budget: what rounding may do, measured by running the original with every operation's result perturbed."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks import CHECKS
from equivcheck.numerics.dtypes import DTYPES
from equivcheck.numerics.roundoff import unit_roundoff
from equivcheck.numerics.truth import Truth
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.perturbed_runs import oracle_in_turn, oracle_together
from equivcheck.pairs.problem import Problem
from equivcheck.pairs.resolve import resolve

f64 = torch.float64


CASE = Case(batch_size=2, seq_len=9, n_head=2, head_size=8, block_size=9, seed=4)


def subject(reference: Any = CausalSelfAttention) -> Pair:
    return resolve(reference, reference, kind="module", device="cpu")


def spreads(problem: Problem, deviations: dict[str, Tensor]) -> dict[str, float]:
    """The root mean square of the deviations of each tensor that moves at all."""
    found = {name: float(d.square().mean().sqrt()) for name, d in deviations.items()}
    return {name: size for name, size in found.items() if size > 0}


def deviations(truth: Truth, *, refined: bool = True) -> dict[str, Tensor]:
    return dict(truth.sample(refined=refined).deviations)


def test_rounding_moves_query_gradients_even_at_one_position() -> None:
    case = CASE.but(seq_len=1, block_size=1)
    truth = subject().problem(case).truth(gradients=True)
    for name in ("grad query.weight", "grad query.bias", "grad key.weight"):
        assert not bool(truth.values[name].any())
        for refined in (False, True):
            assert float(deviations(truth, refined=refined)[name].abs().max()) > 0


def test_what_lies_behind_the_mask_is_moved_by_nothing() -> None:
    problem = subject().problem(CASE)
    problem.upstream["output"][:, 3:] = 0  # type: ignore[index]
    truth = problem.truth(gradients=True)
    moved = deviations(truth)["grad x"]
    assert bool(moved[:, :, :3].any())
    assert not bool(moved[:, :, 3:].any())


@pytest.mark.parametrize("case", [CASE, CASE.but(regime="ties"), CASE.but(dtype="bfloat16"), CASE.but(regime="tiny")])
def test_runs_that_go_through_together_have_the_spread_of_runs_in_turn(case: Case) -> None:
    problem = subject().problem(case)
    oracle = problem._oracle(True)
    rooted = {}
    for how in (oracle_together, oracle_in_turn):
        sample = how(problem, oracle, 48, gradients=True)
        assert sample.count == 48
        assert all(d.shape == (48, *oracle.values[name].shape) for name, d in sample.deviations.items())
        rooted[how.__name__] = spreads(problem, dict(sample.deviations))
    together, in_turn = rooted["oracle_together"], rooted["oracle_in_turn"]
    assert {"output", "grad x", "grad value.weight"} <= set(together)
    assert list(together) == list(in_turn)
    for name, size in together.items():
        assert 0.5 < size / in_turn[name] < 2, name


def test_runs_that_go_through_together_are_independent() -> None:
    truth = subject().problem(CASE).truth(gradients=True)
    found = deviations(truth)
    assert {"output", "grad x"} <= set(found)
    for name, d in found.items():
        flat = F.normalize(d.reshape(len(d), -1), dim=1)
        among = (flat @ flat.T - torch.eye(len(d), dtype=f64)).abs()
        assert float(among.max()) < 0.999, name
        assert abs(float((flat @ flat.T).triu(1).sum())) < len(d) ** 2 / 4, name


def test_the_same_case_has_the_same_budget_every_time() -> None:
    first = deviations(subject().problem(CASE).truth(gradients=True))
    again = deviations(subject().problem(CASE).truth(gradients=True))
    assert list(first) == list(again)
    assert all(torch.equal(d, again[name]) for name, d in first.items())
    other = deviations(subject().problem(CASE.but(seed=5)).truth(gradients=True))
    assert not torch.equal(first["output"], other["output"])


def test_measuring_the_budget_leaves_the_generators_alone() -> None:
    before = torch.get_rng_state()
    deviations(subject().problem(CASE).truth(gradients=True))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_budget_of_an_output_is_some_roundings_of_its_dtype(dtype: str) -> None:
    truth = subject().problem(CASE.but(dtype=dtype)).truth(gradients=False)
    share = float(deviations(truth)["output"].square().mean().sqrt() / truth.values["output"].square().mean().sqrt())
    assert 0.5 * unit_roundoff(getattr(torch, dtype)) < share < 200 * unit_roundoff(getattr(torch, dtype))


def test_a_fused_original_has_the_budget_of_a_spelled_out_one() -> None:
    plain = deviations(subject().problem(CASE).truth(gradients=True))
    fused = deviations(subject(FlashCausalSelfAttention).problem(CASE).truth(gradients=True))
    assert {"output", "grad x"} <= set(plain)
    for name, d in plain.items():
        ratio = float(fused[name].square().mean().sqrt() / d.square().mean().sqrt())
        assert 0.5 < ratio < 2, name


class Branching(CausalSelfAttention):
    """An original whose code asks its values something, which runs that go through together cannot answer."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y + 1 if float(y.detach().abs().max()) > 1e30 else y


def test_an_original_that_cannot_be_run_together_is_run_in_turn() -> None:
    plain = deviations(subject().problem(CASE).truth(gradients=True))
    branching = deviations(subject(Branching).problem(CASE).truth(gradients=True))
    assert {"output", "grad x"} <= set(plain)
    for name, d in plain.items():
        assert 0.5 < float(branching[name].square().mean().sqrt() / d.square().mean().sqrt()) < 2, name


class Unused(CausalSelfAttention):
    """An original with a parameter that takes no part."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.spare = nn.Parameter(torch.ones(3))


def test_a_parameter_that_takes_no_part_has_no_truth_and_stops_nothing() -> None:
    truth = subject(Unused).problem(CASE).truth(gradients=True)
    assert "grad spare" not in truth.values
    assert "grad spare" not in deviations(truth)


def test_few_runs_come_first_and_fewer_where_there_are_many_scores() -> None:
    truth = subject().problem(CASE).truth(gradients=False)
    assert truth.sample(refined=False).count == 4
    assert truth.sample(refined=True).count == 32
    assert truth.sample(refined=True) is truth.sample(refined=True)
    large = subject().problem(CASE.but(seq_len=256, block_size=256)).truth(gradients=False)
    assert large.sample(refined=False).count == 2


def test_truths_are_kept_up_to_a_limit_of_bytes() -> None:
    pair = subject()
    truth = pair.problem(CASE).truth(gradients=True)
    assert pair.problem(CASE).truth(gradients=True) is truth
    assert pair.with_candidate(CausalSelfAttention, "other").problem(CASE).truth(gradients=True) is truth
    assert pair.problem(CASE).truth(gradients=False) is not truth
    pair.memory.truths.limit_bytes = 1
    other = pair.problem(CASE.but(seed=9)).truth(gradients=True)
    assert pair.problem(CASE.but(seed=9)).truth(gradients=True) is other
    assert pair.problem(CASE).truth(gradients=True) is not truth


def test_a_gradient_that_few_runs_do_not_move_and_many_do_is_no_difference() -> None:
    """Saturated scores: in two runs a key's gradient moves by 1e-35, in most of 32 by more than the right candidate is off."""

    def spelled_out(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, scale: float) -> Tensor:
        s = q @ k.mT * scale
        hidden = torch.ones(s.shape[-2:], dtype=torch.bool).triu(1)
        return (s.masked_fill(hidden, -torch.inf) if is_causal else s).softmax(-1) @ v

    def fused(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, scale: float) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=is_causal, scale=scale)

    case = Case.parse("B1-T182-H1-D31-K182-bfloat16-eval-a0-r0-large_scores-contiguous-s143-S336-full")
    check = next(c for c in CHECKS if c.name == "gradients")
    held = check.run(resolve(spelled_out, fused, kind="function", device="cpu"), case)
    assert held.ratio is not None
    assert held.ratio < 1
