"""What is built of a pair for a case: the same weights, inputs in their layout, and runs that leave nothing behind."""

from typing import Any

import pytest
import torch
from given_pairs import CASE, attend
from torch import Tensor

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention, replace_attention_with_flash_attention
from equivcheck.cases.case import ALIGNED_BYTES, arrange
from equivcheck.cases.words import LAYOUTS
from equivcheck.gpt import GPT
from equivcheck.pairs.oracle_choice import with_oracle_device
from equivcheck.pairs.resolve import resolve
from equivcheck.pairs.to_device import to_device


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_both_sides_have_the_same_weights_in_the_cases_dtype(dtype: str) -> None:
    problem = resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="auto", device="cpu").problem(
        CASE.but(dtype=dtype, training=True)
    )
    assert type(problem.candidate) is FlashCausalSelfAttention
    for name, parameter in problem.reference.named_parameters():
        assert parameter.dtype is getattr(torch, dtype)
        assert torch.equal(parameter, problem.candidate.get_parameter(name))
    assert problem.reference.training
    assert problem.candidate.training


def test_a_replacement_is_made_of_a_model_of_its_own() -> None:
    problem = resolve(GPT, replace_attention_with_flash_attention, kind="auto", device="cpu").problem(CASE)
    assert type(problem.reference.blocks[0].attn) is CausalSelfAttention  # type: ignore[union-attr,index]
    assert type(problem.candidate.blocks[0].attn) is FlashCausalSelfAttention  # type: ignore[union-attr,index]
    assert torch.equal(problem.reference.head.weight, problem.candidate.head.weight)  # type: ignore[union-attr,arg-type]


def test_a_replacement_that_returns_no_model_raises_when_it_is_built() -> None:
    problem = resolve(GPT, lambda model: None, kind="replacement", device="cpu").problem(CASE)
    with pytest.raises(TypeError, match="returned NoneType instead of the model"):
        _ = problem.candidate


@pytest.mark.parametrize("layout", LAYOUTS)
def test_inputs_have_the_layout_of_the_case(layout: str) -> None:
    for pair in ((CausalSelfAttention, FlashCausalSelfAttention), (attend, attend)):
        problem = resolve(*pair, kind="auto", device="cpu").problem(CASE.but(layout=layout))
        for x in problem.inputs:
            assert x.is_contiguous() == (layout in ("contiguous", "offset"))


def test_a_function_is_asked_with_the_scale_and_the_rate_of_the_case() -> None:
    asked: list[dict[str, Any]] = []

    def listening(q: Tensor, k: Tensor, v: Tensor, **options: Any) -> Tensor:
        asked.append(options)
        return attend(q, k, v, **options)

    subject = resolve(listening, attend, kind="auto", device="cpu")
    asked.clear()  # it was tried out
    for case in (CASE, CASE.but(training=True, attn_pdrop=0.5, scale=0.25, is_causal=False)):
        problem = subject.problem(case)
        problem.run(problem.reference, problem.inputs, gradients=True)
    assert asked == [
        {"is_causal": True, "dropout_p": 0.0, "scale": 0.5},
        {"is_causal": False, "dropout_p": 0.5, "scale": 0.25},
    ]


def test_a_run_gives_results_by_name_and_leaves_no_gradient_behind() -> None:
    problem = resolve(CausalSelfAttention, FlashCausalSelfAttention, kind="auto", device="cpu").problem(CASE)
    found = problem.run(problem.reference, problem.inputs, gradients=True)
    assert {"output", "grad x", "grad key.weight", "grad proj.bias"} <= set(found)
    assert all(p.grad is None for p in problem.reference.parameters())
    assert set(problem.run(problem.reference, problem.inputs, gradients=False)) == {"output"}


def test_every_run_draws_the_same_dropout() -> None:
    case = CASE.but(training=True, attn_pdrop=0.5, resid_pdrop=0.5)
    problem = resolve(CausalSelfAttention, CausalSelfAttention, kind="auto", device="cpu").problem(case)
    state = torch.get_rng_state()
    one = problem.run(problem.reference, problem.inputs, gradients=False)["output"]
    torch.rand(3)
    other = problem.run(problem.candidate, problem.inputs, gradients=False)["output"]
    assert torch.equal(one, other)  # type: ignore[arg-type]
    torch.set_rng_state(state)
    problem.run(problem.reference, problem.inputs, gradients=True)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("returned", [None, {"y": 1}, ()])
def test_a_forward_pass_that_returns_no_tensor_raises_what_it_returned(returned: Any) -> None:
    class Other(CausalSelfAttention):
        def forward(self, x: Tensor) -> Any:
            return returned

    problem = resolve(CausalSelfAttention, Other, kind="module", device="cpu").problem(CASE)
    with pytest.raises(TypeError, match=type(returned).__name__):
        problem.run(problem.candidate, problem.inputs, gradients=False)


def test_a_model_that_returns_no_logits_raises_what_it_returned() -> None:
    class Other(GPT):
        def forward(self, idx: Tensor) -> Any:  # type: ignore[override]
            return None

    problem = resolve(GPT, Other, kind="model", device="cpu").problem(CASE)
    with pytest.raises(TypeError, match="NoneType instead of logits"):
        problem.run(problem.candidate, problem.inputs, gradients=False)


def test_on_the_cpu_the_oracle_is_where_the_pair_is() -> None:
    pair = ("equivcheck.attention:CausalSelfAttention", "equivcheck.attention:FlashCausalSelfAttention")
    subject = resolve(*pair, kind="auto", device="cpu")
    assert with_oracle_device(subject) is subject
    problem = subject.problem(CASE)
    assert problem.judged_on == problem.device == torch.device("cpu")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_what_goes_to_a_gpu_keeps_its_layout_and_its_alignment(dtype: torch.dtype) -> None:
    meta = torch.device("meta")  # a device that is not the CPU, as a GPU is
    x = arrange(torch.randn(2, 3, 5, 8).to(dtype), "offset")
    assert x.storage_offset() * x.element_size() % ALIGNED_BYTES
    for moved in (to_device(x, meta), arrange(x.to(meta), "offset")):
        assert moved.shape == x.shape
        assert moved.stride() == x.stride()
        assert moved.storage_offset() > 0
        assert moved.storage_offset() * moved.element_size() % ALIGNED_BYTES == 0
    plain = to_device(arrange(torch.randn(2, 3, 5, 8), "transposed"), meta)
    assert plain.stride() == arrange(torch.randn(2, 3, 5, 8), "transposed").stride()


def test_queries_are_not_expanded_where_values_are_of_another_size() -> None:
    subject = resolve(attend, attend, kind="function", device="cpu")
    expanded = CASE.but(batch_size=3, n_layer=0, vocab_size=1, layout="expanded", head_size=4)
    assert [x.stride(0) for x in subject.problem(expanded).inputs] == [0, 0, 0]
    q, k, v = subject.problem(expanded.but(value_size=3)).inputs
    assert (q.stride(0) > 0, k.stride(0), v.stride(0)) == (True, 0, 0)
