"""Weights that are kept from one candidate to the next: nobody's writing to them is seen by another."""

from typing import Any

import pytest
import torch

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.pairs.resolve import resolve


class Built(CausalSelfAttention):
    count = 0

    def __init__(self, config: Any) -> None:
        type(self).count += 1
        super().__init__(config)


class WithState(CausalSelfAttention):
    """Keeps what is no tensor in its state."""

    def get_extra_state(self) -> Any:
        return {"calls": []}

    def set_extra_state(self, state: Any) -> None:
        state["calls"].append("loaded")
        assert len(state["calls"]) == 1


SMALL = Case(batch_size=1, seq_len=3, n_head=2, head_size=4, block_size=4, seed=5)


def test_candidates_of_one_case_need_no_original_built_for_each() -> None:
    pair = resolve(Built, FlashCausalSelfAttention, kind="module", device="cpu")
    first = pair.problem(SMALL).candidate
    before = Built.count
    others = [pair.problem(SMALL).candidate for _ in range(3)]
    assert Built.count == before
    assert all(torch.equal(other.query.weight, first.query.weight) for other in others)


class DoubledWhenLoaded(FlashCausalSelfAttention):
    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        for value in state_dict.values():
            value.mul_(2.0)
        return super().load_state_dict(state_dict, *args, **kwargs)


def test_who_writes_to_the_weights_writes_to_a_copy_of_his_own() -> None:
    pair = resolve(CausalSelfAttention, DoubledWhenLoaded, kind="module", device="cpu")
    wanted = 2 * pair.problem(SMALL).reference.query.weight
    for _ in range(3):
        assert torch.equal(pair.problem(SMALL).candidate.query.weight, wanted)


def test_what_an_original_has_come_to_is_not_what_a_candidate_is_given() -> None:
    pair = resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="module", device="cpu")
    problem = pair.problem(SMALL)
    wanted = problem.reference.query.weight.clone()
    with torch.no_grad():
        problem.reference.query.weight.zero_()
    assert torch.equal(problem.candidate.query.weight, wanted)


def test_a_state_that_is_not_all_tensors_is_made_anew_each_time() -> None:
    pair = resolve(WithState, WithState, kind="module", device="cpu")
    for _ in range(3):
        assert isinstance(pair.problem(SMALL).candidate, WithState)
    assert SMALL not in [key[1] for key in pair.memory.weights._values]  # type: ignore[index]


def test_large_weights_are_not_kept_beside_their_module(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equivcheck.pairs.reference._SMALL_BYTES", 100)
    pair = resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="module", device="cpu")
    pair.memory.weights._values.clear()
    assert torch.equal(pair.problem(SMALL).candidate.query.weight, pair.problem(SMALL).reference.query.weight)
    assert not pair.memory.weights._values
