"""The oracle: float64 whatever the original's own code asks for, and nothing of the original changed by the way."""

import ctypes
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.numerics.oracle import Greatest, Widened, math_backend, to_float64
from equivcheck.pairs.resolve import resolve

f64 = torch.float64
CASE = Case(batch_size=2, seq_len=9, n_head=2, head_size=8, block_size=9)


def x() -> Tensor:
    return torch.randn(4, 5, dtype=f64, generator=torch.Generator().manual_seed(0))


def test_a_cast_to_a_narrower_float_stays_float64() -> None:
    with Widened():
        for narrowed in (x().float(), x().half(), x().to(torch.bfloat16), x().type(torch.float32)):
            assert narrowed.dtype is f64
            assert torch.equal(narrowed, x())


def test_an_operation_with_a_narrower_result_dtype_stays_float64() -> None:
    with Widened():
        assert torch.softmax(x(), -1, dtype=torch.float32).dtype is f64
        assert x().sum(dtype=torch.float32).dtype is f64
        assert torch.zeros(3, dtype=torch.float16).dtype is f64


def test_integers_and_booleans_stay_what_they_are() -> None:
    with Widened():
        assert x().to(torch.int64).dtype is torch.int64
        assert (x() > 0).dtype is torch.bool
        assert torch.ones(2, dtype=torch.bool).dtype is torch.bool


def test_outside_everything_is_as_before() -> None:
    with Widened():
        pass
    assert x().float().dtype is torch.float32


def test_inputs_are_copied_exactly_and_module_parameters_widened() -> None:
    module = nn.Linear(3, 3).to(torch.bfloat16)
    before = module.weight.detach().clone()
    floats, ids = torch.randn(2, 3).to(torch.bfloat16), torch.arange(3)
    oracle, (wide, same) = to_float64(module, (floats, ids), torch.device("cpu"))
    assert oracle is module
    assert torch.equal(module.weight, before.to(f64))
    assert wide.dtype is f64
    assert torch.equal(wide, floats.to(f64))
    assert torch.equal(same, ids)
    assert same.dtype is ids.dtype
    same.add_(1)
    assert torch.equal(ids, torch.arange(3))


def fused() -> None:
    q = torch.randn(1, 2, 5, 4, dtype=f64)
    F.scaled_dot_product_attention(q, q, q, is_causal=True)


def multihead() -> None:
    module, x = nn.MultiheadAttention(4, 2, batch_first=True, dtype=f64).eval(), torch.randn(2, 5, 4, dtype=f64)
    with torch.no_grad():
        module(x, x, x)


def encoder_layer() -> None:
    module = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dtype=f64).eval()
    with torch.no_grad():
        module(torch.randn(2, 5, 4, dtype=f64))


@pytest.mark.parametrize("attention", [fused, multihead, encoder_layer])
def test_an_attention_that_is_one_operation_is_taken_apart(attention: Callable[[], None]) -> None:
    seen: list[str] = []

    class Listening(Widened):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            seen.append(func.overloadpacket.__name__)
            return super().__torch_dispatch__(func, types, args, kwargs)

    with math_backend(), Listening():
        attention()
    assert any("softmax" in name for name in seen)
    assert not any(part in name for name in seen for part in ("flash", "efficient", "multi_head", "encoder"))
    assert torch.backends.mha.get_fastpath_enabled()


def upcasting(config: object) -> nn.Module:
    """The original with its softmax in float32, as half of the world writes it."""

    class Upcasting(CausalSelfAttention):
        def forward(self, x: Tensor) -> Tensor:
            T = x.size(1)
            q, k, v = self._heads(x)
            s = (q @ k.mT).float() / q.size(-1) ** 0.5
            s = s.masked_fill(self.mask[:, :, :T, :T] == 0, -torch.inf)
            return self._merge(F.softmax(s, -1, dtype=torch.float32).to(q.dtype) @ v)

    return Upcasting(config)  # type: ignore[arg-type]


def test_an_original_that_upcasts_to_float32_has_a_truth_in_float64() -> None:
    own = resolve(upcasting, upcasting, kind="module", device="cpu").problem(CASE)
    plain = resolve(CausalSelfAttention, CausalSelfAttention, kind="module", device="cpu").problem(CASE)
    truth, expected = own.oracle_values(gradients=True), plain.oracle_values(gradients=True)
    assert list(truth) == list(expected)
    for name, value in truth.items():
        assert value.dtype is f64
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-13)


def test_the_truth_is_the_original_in_float64_bit_by_bit() -> None:
    problem = resolve(CausalSelfAttention, CausalSelfAttention, kind="module", device="cpu").problem(CASE)
    by_hand = problem.make_reference().double()
    y = by_hand(problem.inputs[0].double())
    assert torch.equal(problem.oracle_values(gradients=False)["output"], y.detach())


def test_asking_for_the_truth_leaves_the_problem_alone() -> None:
    problem = resolve(CausalSelfAttention, CausalSelfAttention, kind="module", device="cpu").problem(CASE)
    before = problem.inputs[0].clone()
    weight = problem.reference.key.weight
    problem.truth(gradients=True).sample(refined=True)
    assert torch.equal(problem.inputs[0], before)
    assert problem.reference.key.weight is weight
    assert weight.dtype is torch.float32
    assert weight.grad is None


def test_what_was_in_memory_before_is_no_number_of_the_original() -> None:
    with Greatest() as mode:
        left = [torch.zeros(4096, dtype=f64) for _ in range(50)]
        places = {memory.data_ptr() for memory in left}
        for memory in left:
            ctypes.memset(memory.data_ptr(), 0x7E, memory.nbytes)  # past the mode: numbers of 1e301
        del memory, left
        again = [torch.empty(4096, dtype=f64) for _ in range(50)]
        for memory in again:
            memory[:1].fill_(3.0)  # a view of it is a result as well
    assert places & {memory.data_ptr() for memory in again}
    assert mode.greatest == 3.0
