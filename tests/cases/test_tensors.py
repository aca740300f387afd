"""Weights and inputs: all random, from the seed alone, and each regime is what its name says."""

import math

import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.cases.strategies import cases
from equivcheck.cases.tensors import projections_known, qkv, randomise, sequence, tokens, upstream
from equivcheck.cases.words import LAYOUTS, REGIMES
from equivcheck.gpt import GPT
from equivcheck.numerics.dtypes import DTYPES

MODERATE = Case(batch_size=2, seq_len=64, n_head=2, head_size=16, block_size=64, dtype="float64", seed=3)


def attention(case: Case) -> CausalSelfAttention:
    module = CausalSelfAttention(case.config()).double()
    randomise(module, case)
    return module.to(case.torch_dtype)


def probabilities(case: Case) -> Tensor:
    """The attention weights of the shipped original on a case, (B, H, T, T)."""
    module = attention(case)
    module(sequence(case, sharpen=False))
    assert module.attention_weights is not None
    return module.attention_weights.detach()


def of_function(case: Case) -> tuple[Tensor, Tensor]:
    """Causal scores and probabilities of q and k, (B, H, T, T) each."""
    q, k, _ = qkv(case)
    hidden = torch.ones(case.seq_len, case.seq_len).triu(1) == 1
    s = (q @ k.mT / math.sqrt(case.head_size)).masked_fill(hidden, -math.inf)
    return s, s.softmax(-1)


def entropy_share(p: Tensor) -> float:
    """Mean entropy of the rows with at least half of the keys, as a share of the greatest that their keys allow."""
    T = p.size(-1)
    entropy = -(p * p.clamp_min(1e-300).log()).sum(-1)  # (B, H, T)
    most = torch.arange(1, T + 1, dtype=p.dtype).log()  # (T,)
    return float((entropy / most)[..., T // 2 :].mean())


# --- every parameter -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("regime", [r for r in REGIMES if r != "constant_v"])
def test_every_parameter_is_random_and_no_bias_is_zero(regime: str) -> None:
    case = MODERATE.but(regime=regime, n_layer=2, vocab_size=17)
    model = GPT(case.config()).double()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    randomise(model, case)
    for name, parameter in model.named_parameters():
        assert not bool((parameter == before[name]).any()), name
        assert bool(parameter.all()), name
        assert bool(torch.isfinite(parameter).all()), name
        assert parameter.unique().numel() > 0.99 * parameter.numel(), name


def test_no_two_parameters_hold_the_same_numbers() -> None:
    module = attention(MODERATE)
    assert not torch.equal(module.key.weight, module.query.weight)
    assert not torch.equal(module.key.bias, module.query.bias)


def test_buffers_are_left_alone() -> None:
    module = attention(MODERATE)
    assert torch.equal(module.mask[0, 0], torch.ones(64, 64, dtype=torch.float64).tril())


def test_the_scale_of_a_norm_stays_near_one() -> None:
    norm = nn.LayerNorm(64).double()
    randomise(norm, MODERATE)
    assert 0.8 < float(norm.weight.detach().mean()) < 1.2
    assert bool(norm.bias.all())


def test_weights_do_not_depend_on_the_length() -> None:
    short = attention(MODERATE.but(seq_len=3))
    for name, parameter in attention(MODERATE).named_parameters():
        assert torch.equal(parameter, short.get_parameter(name)), name


# --- inputs come from the seed ---------------------------------------------------------------------------------------


@given(cases(max_seq_len=40, max_heads=3, max_head_size=8))
def test_inputs_depend_on_the_case_alone(case: Case) -> None:
    first = (sequence(case, sharpen=True), *qkv(case), *tokens(case))
    torch.manual_seed(1)
    torch.rand(3)
    again = (sequence(case, sharpen=True), *qkv(case), *tokens(case))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@given(cases(max_seq_len=40, max_heads=3, max_head_size=8))
def test_making_inputs_leaves_the_generator_alone(case: Case) -> None:
    before = torch.get_rng_state()
    sequence(case, sharpen=False), qkv(case), tokens(case), upstream(case, "output", torch.Size((2, 3)))
    assert torch.equal(torch.get_rng_state(), before)


@given(cases(max_seq_len=80, max_heads=4, max_head_size=16))
def test_inputs_have_the_shape_and_dtype_of_the_case_and_are_finite(case: Case) -> None:
    x = sequence(case, sharpen=True)
    assert (x.shape, x.dtype) == ((case.batch_size, case.seq_len, case.n_embd), case.torch_dtype)
    assert bool(torch.isfinite(x).all())
    for part in qkv(case):
        assert (part.shape, part.dtype) == (
            (case.batch_size, case.n_head, case.seq_len, case.head_size),
            case.torch_dtype,
        )
        assert bool(torch.isfinite(part).all())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("seed", range(4))
def test_no_regime_makes_weights_that_are_not_finite(dtype: str, seed: int) -> None:
    for regime in REGIMES:
        case = MODERATE.but(dtype=dtype, regime=regime, seed=seed, seq_len=4)
        for name, parameter in attention(case).named_parameters():
            assert bool(torch.isfinite(parameter).all()), (regime, name)


# --- the regimes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head_size", [4, 16, 64])
def test_a_sharpened_softmax_has_about_half_of_its_greatest_entropy(head_size: int) -> None:
    cases_ = [MODERATE.but(head_size=head_size, seed=seed) for seed in range(8)]
    by_module = sum(entropy_share(probabilities(case)) for case in cases_) / len(cases_)
    by_function = sum(entropy_share(of_function(case)[1]) for case in cases_) / len(cases_)
    assert 0.3 < by_module < 0.6
    assert 0.3 < by_function < 0.6


def test_a_module_of_unknown_projections_is_sharpened_by_its_inputs() -> None:
    case = MODERATE

    def share(*, sharpen: bool) -> float:
        x = sequence(case, sharpen=sharpen)
        w = torch.randn(2, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64) / math.sqrt(32)
        q, k = (x @ w[0]).view(2, 64, 2, 16).transpose(1, 2), (x @ w[1]).view(2, 64, 2, 16).transpose(1, 2)
        s = (q @ k.mT / 4).masked_fill(torch.ones(64, 64).triu(1) == 1, -math.inf)
        return entropy_share(s.softmax(-1))

    assert share(sharpen=True) < 0.6 < share(sharpen=False)


def test_near_its_initial_weights_attention_is_almost_uniform() -> None:
    assert entropy_share(probabilities(MODERATE.but(regime="near_initial"))) > 0.99


def test_large_scores_saturate_the_softmax() -> None:
    for seed in range(4):
        assert entropy_share(probabilities(MODERATE.but(regime="large_scores", seed=seed))) < 0.1


def test_some_large_scores_are_beyond_a_mask_of_minus_ten_thousand() -> None:
    greatest = [
        float(of_function(MODERATE.but(regime="large_scores", seed=seed))[0].nan_to_num(neginf=0).abs().max())
        for seed in range(4)
    ]
    assert max(greatest) > 1e4


@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_are_exactly_equal_scores(dtype: str) -> None:
    case = MODERATE.but(regime="ties", dtype=dtype, seq_len=9)
    x = sequence(case, sharpen=False)
    for i in range(3, 9):
        assert torch.equal(x[:, i], x[:, i - 3])
    q, k, v = (part.double() for part in qkv(case))
    scores = q @ k.mT
    assert torch.equal(scores[..., 3:6], scores[..., :3])
    assert not torch.equal(v[..., :1, :], v[..., 1:2, :])


def test_a_one_hot_input_has_one_entry_per_position() -> None:
    x = sequence(MODERATE.but(regime="one_hot"), sharpen=False)
    assert bool(((x != 0).sum(-1) == 1).all())
    q, _, _ = qkv(MODERATE.but(regime="one_hot"))
    assert bool(((q != 0).sum(-1) == 1).all())


def test_with_zero_rows_some_positions_are_zero_and_some_are_not() -> None:
    x = sequence(MODERATE.but(regime="zero_rows"), sharpen=False)
    zero = (x == 0).all(-1)
    assert 0.3 < float(zero.double().mean()) < 0.7
    assert bool(x[~zero].all())


def test_a_constant_v_is_the_same_for_every_key() -> None:
    case = MODERATE.but(regime="constant_v")
    v = attention(case).value(sequence(case, sharpen=False))
    assert bool((v == v[:, :1]).all())
    assert bool(v.any())
    v = qkv(case)[2]
    assert bool((v == v[..., :1, :]).all())
    x = sequence(case, sharpen=True)
    assert bool((x == x[:, :1]).all())


def test_values_of_the_same_sign_have_a_common_mean() -> None:
    case = MODERATE.but(regime="same_sign_v")
    v = attention(case).value(sequence(case, sharpen=False))
    assert float((v > 0).double().mean()) > 0.99
    assert float((qkv(case)[2] > 0).double().mean()) > 0.99


@pytest.mark.parametrize("dtype", DTYPES)
def test_products_of_tiny_values_underflow(dtype: str) -> None:
    case = MODERATE.but(regime="tiny", dtype=dtype)
    q, k, _ = qkv(case)
    assert bool((q != 0).any())
    normal = torch.finfo(case.torch_dtype).smallest_normal
    assert float((q.double() @ k.double().mT).abs().median()) < 64 * normal


@pytest.mark.parametrize("dtype", DTYPES)
def test_near_the_limit_values_are_large_and_finite(dtype: str) -> None:
    case = MODERATE.but(regime="near_limit", dtype=dtype)
    v = qkv(case)[2]
    assert bool(torch.isfinite(v).all())
    assert float(v.abs().max()) > torch.finfo(case.torch_dtype).max ** 0.25


@given(cases(max_seq_len=12, max_heads=3, max_head_size=8))
def test_every_regime_is_shaped_alike_at_every_length(case: Case) -> None:
    """Shrinking a length keeps the weights and the kind of input, so that a failure is still the same failure."""
    p = probabilities(case.but(dtype="float64", attn_pdrop=0.0))
    assert p.shape == (case.batch_size, case.n_head, case.seq_len, case.seq_len)
    torch.testing.assert_close(p.sum(-1), torch.ones(p.shape[:-1], dtype=torch.float64))
    assert not bool(p.triu(1).any())


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names",
    [
        ("key.weight", "query.weight", "value.weight"),
        ("blocks.0.attn.q_proj.weight", "blocks.0.attn.k_proj.weight"),
        ("w_q", "w_k", "w_v"),
        ("to_q.weight", "to_k.weight"),
        ("WQuery", "WKey"),
    ],
)
def test_projections_are_known_by_their_usual_names(names: tuple[str, ...]) -> None:
    assert projections_known(names)


@pytest.mark.parametrize(
    "names", [(), ("c_attn.weight",), ("query.weight", "value.weight"), ("qk.weight", "keyboard.weight")]
)
def test_a_fused_projection_is_not_known_by_name(names: tuple[str, ...]) -> None:
    assert not projections_known(names)


# --- upstream gradients and tokens -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_upstream_gradient_has_the_cases_layout_and_its_seeds_values(layout: str) -> None:
    shape = torch.Size((2, 3, 4))
    plain = upstream(MODERATE, "output", shape)
    laid = upstream(MODERATE.but(layout=layout), "output", shape)
    assert laid.dtype is MODERATE.torch_dtype
    assert torch.equal(laid, plain[:1].expand(shape) if layout == "expanded" else plain)
    assert laid.is_contiguous() == (layout in ("contiguous", "offset"))
    assert not torch.equal(plain, upstream(MODERATE, "loss", shape))


@given(cases(n_layers=(1,), max_seq_len=40))
def test_targets_are_the_tokens_that_follow(case: Case) -> None:
    idx, targets = tokens(case)
    assert idx.shape == targets.shape == (case.batch_size, case.seq_len)
    assert torch.equal(idx[:, 1:], targets[:, :-1])
    assert 0 <= int(idx.min()) <= int(idx.max()) < case.vocab_size


def test_text_tokens_are_the_characters_of_text_that_ships_with_python() -> None:
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics))[: 1 << 17]
    characters = sorted(set(text))
    case = MODERATE.but(tokens="text", vocab_size=len(characters), n_layer=1)
    idx, targets = tokens(case)
    for row, last in zip(idx, targets[:, -1], strict=True):
        assert "".join(characters[int(i)] for i in (*row, last)) in text


def test_random_tokens_are_not_text_and_ties_repeat_three_of_them() -> None:
    idx, _ = tokens(MODERATE.but(n_layer=1, vocab_size=73))
    text, _ = tokens(MODERATE.but(n_layer=1, vocab_size=73, tokens="text"))
    assert not torch.equal(idx, text)
    ties, _ = tokens(MODERATE.but(n_layer=1, vocab_size=73, regime="ties"))
    assert torch.equal(ties[:, 3:], ties[:, :-3])
