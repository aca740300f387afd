"""Every right attention is the original: in float64, in its dtype, under dropout, and in what it refuses."""

from types import SimpleNamespace

import pytest
import torch
from differing import Differs, bf16, config_with, distance, f16, f32, f64, ids, one_value, pulled_back, transposed
from symptoms import accepts, bypasses_hooks, cannot_train_after_inference, has_other_keys, wrong_share
from torch import Tensor

from equivcheck.attention import CausalSelfAttention
from equivcheck.faults import RIGHT, Right


@pytest.mark.parametrize("right", **ids(RIGHT))
@pytest.mark.parametrize(
    "case",
    [
        Differs(grads=True),
        Differs(grads=True, T=1, H=1, D=1),
        Differs(grads=True, T=67, H=3, D=5, B=1, gain=1.5),
        Differs(grads=True, T=33, training=True, x=transposed, g=one_value, gain=0.0),
    ],
    ids=["plain", "single", "tails", "ties"],
)
def test_a_right_one_is_the_original_in_float64(right: Right, case: Differs) -> None:
    for a, b in zip(case.results(right.attention, f64), case.results(CausalSelfAttention, f64), strict=True):
        assert a.shape == b.shape
        # some hundred roundings of 1e-16, and 1e-12 leaves room for the cancellation in a softmax's backward pass
        assert distance(a, b) < 1e-12


@pytest.mark.parametrize("right", **ids(RIGHT))
@pytest.mark.parametrize("dtype", [f32, bf16, f16], ids=str)
def test_a_right_one_is_no_further_off_than_the_original_in_its_dtype(right: Right, dtype: torch.dtype) -> None:
    case = Differs(T=67, H=2, D=8, dtype=dtype)
    assert not case(right.attention)
    assert case.results(right.attention, dtype)[0].dtype == dtype


@pytest.mark.parametrize("right", **ids(RIGHT))
def test_a_right_one_survives_large_scores_and_large_values(right: Right) -> None:
    large = Differs(T=40, gain=60.0, dtype=f32)
    oracle = large.results(CausalSelfAttention, f64)[0]
    # scores of some thousands carry an error of some 1e-4, whoever computes them
    assert distance(large.results(right.attention, f32)[0], oracle) < 1e-2
    assert not Differs(T=40, dtype=f16, x=lambda x: x * 1000, gain=0.001)(right.attention)


@pytest.mark.parametrize("right", **ids(RIGHT))
def test_a_right_one_obeys_dropout_in_both_directions(right: Right) -> None:
    config = config_with(0.3, 0.2, T=3)
    torch.manual_seed(0)
    module = right.attention(config).double()
    x = torch.randn(1, 3, 16, dtype=f64, requires_grad=True)

    def under_one_mask(x: Tensor) -> Tensor:
        torch.manual_seed(3)
        return module(x)  # type: ignore[no-any-return]

    upstream, along = torch.randn(1, 3, 16, dtype=f64), torch.randn(1, 3, 16, dtype=f64)
    (gradient,) = pulled_back(under_one_mask(x), [x], upstream)
    step = 1e-6 * along
    slope = ((under_one_mask(x + step) - under_one_mask(x - step)) * upstream).sum() / 2e-6
    assert float((gradient * along).sum()) == pytest.approx(float(slope), rel=1e-6)
    assert not torch.equal(module(x), module(x))
    module.eval()
    assert torch.equal(module(x), module(x))
    module.get_submodule("attn_drop").train()
    assert not torch.equal(module(x), module(x))


@pytest.mark.parametrize("right", **ids(RIGHT))
def test_a_right_one_drops_the_right_share(right: Right) -> None:
    torch.manual_seed(0)
    module = right.attention(SimpleNamespace(n_embd=64, n_head=64, block_size=2, attn_pdrop=0.3, resid_pdrop=0.0))
    with torch.no_grad():
        module.proj.weight.copy_(torch.eye(64))
        module.proj.bias.zero_()
        x = torch.randn(200, 1, 64)
        ratio = module(x) / module.value(x)  # with a single token the only probability is 1
    assert not wrong_share(ratio == 0, 0.3)
    assert torch.allclose(ratio[ratio != 0], torch.tensor(1 / 0.7))
    module.attn_drop.p = 1.0
    assert torch.equal(module(x), torch.zeros_like(x))


@pytest.mark.parametrize("right", **ids(RIGHT))
def test_a_right_one_refuses_and_accepts_what_the_original_does(right: Right) -> None:
    assert not accepts(1, 33, 16)(right.attention)
    assert not accepts(1, 4, 17)(right.attention)
    assert not accepts(4, 16)(right.attention)
    assert accepts(0, 4, 16)(right.attention)
    assert accepts(2, 0, 16)(right.attention)
    assert not has_other_keys(right.attention)
    assert not cannot_train_after_inference(right.attention)
    assert not bypasses_hooks("query", "key", "value", "proj")(right.attention)
    with pytest.raises(RuntimeError):
        right.attention(config_with(T=4))(torch.randn(1, 5, 16))
