"""An original without float64 has an oracle of the user, which is called, built and given weights as it is."""

from typing import Any

import pytest
import torch
from torch import Tensor

from equivcheck.adapters.readings import softmax_attention, softmax_attention_top_left
from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks.dropout.exact import must_open
from equivcheck.checks.values import gradients, output
from equivcheck.errors import Mismatch, NoOracle, UsageError
from equivcheck.gpt import GPT
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.reference import oracle_instead
from equivcheck.pairs.resolve import resolve
from equivcheck.pairs.supported_dtypes import usable_dtypes

HALF = (torch.bfloat16, torch.float16)
CASE = Case(batch_size=2, seq_len=6, n_head=2, head_size=8, block_size=6, dtype="bfloat16")


def kernel(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    assert q.dtype in HALF
    return softmax_attention_top_left(q, k, v, is_causal=is_causal, scale=scale)


def heads_last_kernel(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    return kernel(*(x.transpose(1, 2) for x in (q, k, v)), is_causal=causal).transpose(1, 2)


def wrong(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool = False, scale: float | None = None) -> Tensor:
    return kernel(q, k, v, is_causal=is_causal, scale=scale) * 2


def without_options(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return softmax_attention(q, k, v)


class Half(CausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        if x.dtype not in HALF:
            raise TypeError("half precision alone")
        return super().forward(x)


class OtherNames(CausalSelfAttention):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.first = self.query


class NoFloat64Model(GPT):
    def forward(self, idx: Tensor, targets: Tensor | None = None) -> Any:
        if next(self.parameters()).dtype is torch.float64:
            raise TypeError("no float64")
        return super().forward(idx, targets)


def pair_of(reference: Any, candidate: Any, oracle: Any = None, kind: str = "auto") -> Pair:
    return resolve(reference, candidate, kind=kind, device="cpu", adaptation={"oracle": oracle})


def test_without_an_oracle_the_message_says_how_to_give_one() -> None:
    with pytest.raises(NoOracle, match=r"does not run in float64.*give --oracle, a function of the same signature"):
        usable_dtypes(pair_of(kernel, kernel))


def test_an_oracle_that_does_not_run_in_float64_is_refused_by_its_name() -> None:
    with pytest.raises(UsageError, match=r"the oracle .*wrong does not run in float64"):
        usable_dtypes(pair_of(kernel, kernel, wrong))


def test_with_an_oracle_a_function_is_judged_in_the_dtypes_that_it_has() -> None:
    pair = pair_of(kernel, kernel, softmax_attention_top_left)
    assert usable_dtypes(pair)[0] == ["bfloat16", "float16"]
    assert {"causal lengths", "value size"} <= pair.features
    output(pair, CASE)
    gradients(pair, CASE)


def test_a_wrong_candidate_is_different_under_an_oracle() -> None:
    with pytest.raises(Mismatch):
        output(pair_of(kernel, wrong, softmax_attention_top_left), CASE)


@pytest.mark.parametrize("oracle", [softmax_attention_top_left, heads_last_kernel])
def test_an_oracle_of_either_layout_serves_an_original_of_heads_last(oracle: Any) -> None:
    pair = pair_of(heads_last_kernel, heads_last_kernel, oracle)
    assert pair.heads_last
    assert pair.oracle is not None
    q, k, v = (x.bfloat16() for x in pair.problem(CASE).inputs)  # (B, H, T, D)
    torch.testing.assert_close(pair.oracle(q, k, v, is_causal=True), kernel(q, k, v, is_causal=True))


def test_an_oracle_without_an_option_of_the_original_is_refused() -> None:
    with pytest.raises(UsageError, match="does not take is_causal, which the original is called with"):
        pair_of(kernel, kernel, without_options)


def test_an_option_that_the_original_does_not_take_is_not_given_to_its() -> None:
    pair = pair_of(without_options, without_options, softmax_attention)
    problem = pair.problem(CASE.but(dtype="float64", is_causal=True))
    torch.testing.assert_close(problem.oracle_values(gradients=False)["output"], without_options(*problem.inputs))


def test_an_oracle_of_modules_has_the_weights_of_the_original() -> None:
    pair = pair_of(Half, FlashCausalSelfAttention, CausalSelfAttention)
    assert usable_dtypes(pair)[0] == ["bfloat16", "float16"]
    problem = pair.problem(CASE)
    oracle, _ = problem.original_in_float64()
    assert type(oracle) is CausalSelfAttention
    for name, value in problem.reference.named_parameters():
        assert torch.equal(oracle.get_parameter(name), value.double())
    gradients(pair, CASE)


def test_an_oracle_of_modules_with_other_names_is_refused_in_one_line() -> None:
    with pytest.raises(UsageError, match="whose parameters have the same names") as refused:
        pair_of(Half, FlashCausalSelfAttention, OtherNames)
    assert "\n" not in str(refused.value)


def test_a_model_has_an_oracle_as_well() -> None:
    pair = pair_of(NoFloat64Model, GPT, GPT)
    assert usable_dtypes(pair)[0] == ["float32", "bfloat16", "float16"]
    problem = pair.problem(CASE.but(n_layer=1, vocab_size=11))
    assert set(problem.oracle_values(gradients=False)) == {"logits", "loss"}


def test_inside_a_gpt_the_oracle_stands_where_the_original_stands() -> None:
    problem = pair_of(Half, FlashCausalSelfAttention, CausalSelfAttention).within_gpt().problem(CASE.but(n_layer=1))
    kinds = {type(module) for module in problem.original_in_float64()[0].modules()}
    assert CausalSelfAttention in kinds
    assert Half not in kinds


def test_an_original_is_the_oracle_only_where_truth_is_computed() -> None:
    make = pair_of(Half, FlashCausalSelfAttention, CausalSelfAttention).problem(CASE).make_reference
    assert type(make()) is Half
    with oracle_instead():
        assert type(make()) is CausalSelfAttention
    assert type(make()) is Half


def test_dropout_masks_are_put_into_the_oracle() -> None:
    def dropping(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
        assert q.dtype in HALF
        return softmax_attention_top_left(q, k, v, is_causal=is_causal, dropout_p=dropout_p, scale=scale)

    must_open(pair_of(dropping, dropping, softmax_attention_top_left), CASE.but(training=True, attn_pdrop=0.5))


@pytest.mark.parametrize(("reading", "seen"), [(softmax_attention, 4), (softmax_attention_top_left, 1)])
def test_a_reading_aligns_its_causal_mask_at_one_corner(reading: Any, seen: int) -> None:
    q, k, v = torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 5, 4), torch.eye(5).view(1, 1, 5, 5)
    assert int((reading(q, k, v, is_causal=True)[0, 0, 0] > 0).sum()) == seen
