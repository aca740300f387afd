"""Masks are read off as they really are, whatever the kernel, and the oracle drops what they say."""

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks.dropout.attention_layers import find_attentions
from equivcheck.checks.dropout.exact import must_open, read_masks
from equivcheck.checks.dropout.masks import Masks, inject
from equivcheck.checks.dropout.under_masks import under_masks
from equivcheck.checks.dropout.visibility import visible_keys
from equivcheck.errors import NotOpened
from equivcheck.gpt import GPT
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.problem import Problem
from equivcheck.pairs.resolve import resolve
from equivcheck.runtime.rng import seeded

CASE = Case(
    batch_size=2,
    seq_len=9,
    n_head=2,
    head_size=4,
    block_size=12,
    training=True,
    attn_pdrop=0.5,
    resid_pdrop=0.25,
    regime="near_initial",
    seed=1,
)
RATES = [(0.5, 0.25), (0.1, 0.0), (0.0, 0.5), (0.0, 0.0), (1.0, 0.5), (0.5, 1.0)]


def pair(candidate: Any = FlashCausalSelfAttention, original: Any = CausalSelfAttention) -> Pair:
    return resolve(original, candidate, kind="module", device="cpu")


def gpts() -> Pair:
    return resolve(GPT, lambda config: GPT(config, attention=FlashCausalSelfAttention), kind="model", device="cpu")


def run(problem: Problem, module: nn.Module, *, gradients: bool = False) -> Tensor:
    with seeded(problem.case.seed, problem.device), torch.set_grad_enabled(gradients):
        return next(iter(problem.outputs(module, problem.inputs).values())).detach()


def explained(problem: Problem, module: nn.Module, masks: Masks) -> None:
    """The oracle under the masks gives what the module gives, and it does not with other masks."""
    name = "logits" if problem.case.n_layer else "output"
    got = run(problem, module).double()

    def off(masks: Masks) -> float:
        return float((under_masks(problem, masks).oracle_values(gradients=False)[name] - got).abs().max())

    assert off(masks) <= 1e-4 * float(got.abs().max())
    visible = visible_keys(problem.case, problem.case.seq_len, problem.device)
    if 0 < problem.case.attn_pdrop < 1 and bool(got.any()):
        assert off(replace(masks, attention=tuple(~m & visible for m in masks.attention))) > 1e-2 * float(
            got.abs().max()
        )


# --- what is read off is what is dropped -----------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 3, 4, 5, 9])  # D is 4: less than one part, one, and some that do not divide
@pytest.mark.parametrize("rate", [0.1, 0.5, 1.0])
def test_the_masks_of_the_original_are_those_that_it_drops(length: int, rate: float) -> None:
    problem = pair().problem(CASE.but(seq_len=length, attn_pdrop=rate))
    masks = read_masks(problem, problem.reference, gradients=False)
    y = run(problem, problem.reference)
    kept = problem.reference.attention_weights != 0  # (B, H, T, T)
    assert len(masks.attention) == len(masks.residual) == 1
    assert torch.equal(masks.attention[0], kept)
    assert torch.equal(masks.residual[0], y != 0)
    assert masks.outside == ()


@pytest.mark.parametrize("rates", RATES)
@pytest.mark.parametrize("kind", [CausalSelfAttention, FlashCausalSelfAttention])
def test_the_oracle_under_the_masks_gives_the_very_result(kind: Any, rates: tuple[float, float]) -> None:
    for length in (1, 4, 9):
        case = CASE.but(attn_pdrop=rates[0], resid_pdrop=rates[1], seq_len=length)
        problem = pair(kind).problem(case)
        explained(problem, problem.candidate, read_masks(problem, problem.candidate, gradients=False))


def test_the_oracle_under_its_own_masks_is_the_original_in_float64() -> None:
    problem = pair().problem(CASE.but(dtype="float64"))
    for module in (problem.reference, problem.candidate):
        masks = read_masks(problem, module, gradients=False)
        ruled = under_masks(problem, masks).oracle_values(gradients=True)
        own = problem.run(module, problem.inputs, gradients=True)
        assert list(own) == list(ruled)
        for name, value in own.items():
            assert value is not None
            assert torch.allclose(value, ruled[name], rtol=1e-9, atol=1e-12), name


@pytest.mark.parametrize("kind", [CausalSelfAttention, FlashCausalSelfAttention])
def test_rates_of_0_and_1_keep_everything_and_nothing(kind: Any) -> None:
    for rate in (0.0, 1.0):
        problem = pair(kind).problem(CASE.but(attn_pdrop=rate, resid_pdrop=rate))
        masks = read_masks(problem, problem.candidate, gradients=True)
        visible = visible_keys(problem.case, CASE.seq_len, problem.device)
        assert torch.equal(masks.attention[0], visible.expand(2, 2, 9, 9) & (rate == 0))
        assert bool((masks.residual[0] == (rate == 0)).all())


def test_in_eval_nothing_is_dropped() -> None:
    problem = pair().problem(CASE.but(training=False))
    masks = read_masks(problem, problem.candidate, gradients=False)
    assert torch.equal(masks.attention[0], torch.ones(9, 9, dtype=torch.bool).tril().expand(2, 2, 9, 9))
    assert bool(masks.residual[0].all())


def test_a_later_call_has_other_masks_and_the_same_call_the_same() -> None:
    problem = pair().problem(CASE)
    first, again, later = (read_masks(problem, problem.candidate, gradients=True, calls=n) for n in (0, 0, 1))
    assert first.same(again)
    assert not first.same(later)


def test_reading_changes_neither_the_generator_nor_the_module() -> None:
    problem = pair().problem(CASE)
    before, state = run(problem, problem.candidate), torch.get_rng_state()
    read_masks(problem, problem.candidate, gradients=True)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(run(problem, problem.candidate), before)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in problem.candidate.modules())


# --- other shapes of attention ---------------------------------------------------------------------------------------


def spelled_out(q: Tensor, k: Tensor, v: Tensor, *, is_causal: bool, dropout_p: float, scale: float) -> Tensor:
    s = q @ k.mT * scale
    if is_causal:
        s = s.masked_fill(torch.ones(s.shape[-2:]).triu(1) == 1, -torch.inf)
    return F.dropout(F.softmax(s, -1), dropout_p) @ v


@pytest.mark.parametrize("is_causal", [True, False])
@pytest.mark.parametrize("layout", ["contiguous", "expanded"])
def test_masks_of_functions_are_those_that_explain_their_results(layout: str, *, is_causal: bool) -> None:
    subject = resolve(spelled_out, F.scaled_dot_product_attention, kind="function", device="cpu")
    case = CASE.but(resid_pdrop=0.0, is_causal=is_causal, layout=layout)
    must_open(subject, case)
    problem = subject.problem(case)
    for module in (problem.reference, problem.candidate):
        masks = read_masks(problem, module, gradients=False)
        assert (len(masks.attention), masks.residual, masks.outside) == (1, (), ())
        explained(problem, module, masks)


class FusedProjection(nn.Module):
    """nanoGPT's: one linear makes queries, keys and values."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.attn_dropout = nn.Dropout(config.attn_pdrop)
        self.resid_dropout = nn.Dropout(config.resid_pdrop)
        self.n_head = config.n_head

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = (
            part.view(B, T, self.n_head, C // self.n_head).transpose(1, 2) for part in self.c_attn(x).split(C, -1)
        )
        y: Tensor = self.resid_dropout(self.c_proj(self.mixed(q, k, v).transpose(1, 2).reshape(B, T, C)))
        return y

    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        s = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(torch.ones(q.shape[2], q.shape[2]).triu(1) == 1, -torch.inf)
        y: Tensor = self.attn_dropout(s.softmax(-1)) @ v
        return y


class FusedKernel(FusedProjection):
    def mixed(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        rate = self.attn_dropout.p if self.training else 0.0
        return F.scaled_dot_product_attention(q, k, v, dropout_p=rate, is_causal=True)


@pytest.mark.parametrize("original", [FusedProjection, FusedKernel])
def test_one_linear_that_makes_queries_keys_and_values_is_opened(original: Any) -> None:
    subject = pair(FusedKernel, original)
    must_open(subject, CASE)
    problem = subject.problem(CASE)
    assert list(find_attentions(problem.candidate, CASE)[0].linears) == ["qkv", "out"]
    masks = read_masks(problem, problem.candidate, gradients=False)
    assert not bool(masks.attention[0].all())
    explained(problem, problem.candidate, masks)


def test_a_gpt_has_masks_of_each_layer_and_of_every_other_dropout() -> None:
    case = CASE.but(n_layer=3, vocab_size=17)
    subject = gpts()
    must_open(subject, case)
    problem = subject.problem(case)
    for module in (problem.reference, problem.candidate):
        masks = read_masks(problem, module, gradients=False)
        assert [m.shape for m in masks.attention] == [(2, 2, 9, 9)] * 3
        assert [m.shape for m in masks.residual] == [(2, 9, 8)] * 3
        assert [m.shape for m in masks.outside] == [(2, 9, 8)] * 4  # the embedding's, and each MLP's
        assert len({tuple(m.reshape(-1).tolist()) for m in (*masks.residual, *masks.outside)}) == 7
        explained(problem, module, masks)


def test_every_gradient_of_a_gpt_is_that_of_the_oracle_under_its_masks() -> None:
    problem = gpts().problem(CASE.but(n_layer=2, vocab_size=17, dtype="float64"))
    masks = read_masks(problem, problem.candidate, gradients=True)
    ruled = under_masks(problem, masks).oracle_values(gradients=True)
    for name, value in problem.run(problem.candidate, problem.inputs, gradients=True).items():
        assert value is not None
        assert torch.allclose(value, ruled[name], rtol=1e-8, atol=1e-12), name


# --- what cannot be opened -------------------------------------------------------------------------------------------


class OtherNames(FusedProjection):
    """Not a name says what it is, and its first linear is too wide to be all three."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd + 1)
        self.last, self.c_proj = self.c_proj, nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.c_attn(x)[..., :-1].split(x.shape[-1], -1)
        y: Tensor = self.last(q + k + v)
        return y


class NotCalled(FlashCausalSelfAttention):
    """Uses its value's weights, and not its value."""

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, _ = super()._heads(x)
        return q, k, F.linear(x, self.value.weight, self.value.bias).view(*x.shape[:2], self.n_head, -1).transpose(1, 2)


class NeverCallsItsLast(FlashCausalSelfAttention):
    def _merge(self, y: Tensor) -> Tensor:
        y = y.transpose(1, 2).flatten(2)
        return self.resid_drop(F.linear(y, self.proj.weight, self.proj.bias))  # type: ignore[no-any-return]


class StrictlyCausal(CausalSelfAttention):
    """A position does not see itself; the first one sees what it must."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._heads(x)
        hidden = torch.ones(x.shape[1], x.shape[1]).triu() == 1
        hidden[0, 0] = False
        s = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(hidden, -torch.inf)
        return self._merge(self.attn_drop(s.softmax(-1)) @ v)


class Doubled(FlashCausalSelfAttention):
    """What leaves the last linear is not what it returns."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * torch.arange(x.shape[1], dtype=x.dtype).unsqueeze(-1)


class CalledTwice(FlashCausalSelfAttention):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + super().forward(x)


@pytest.mark.parametrize(
    ("candidate", "why"),
    [
        (NotCalled, "its probabilities are not equal"),
        (NeverCallsItsLast, "not called as modules"),
        (StrictlyCausal, "its probabilities are not equal"),
        (Doubled, "what leaves its last linear is not what it returns"),
        (CalledTwice, "called more than once"),
    ],
)
def test_what_cannot_be_opened_says_why(candidate: Any, why: str) -> None:
    with pytest.raises(NotOpened, match=why):
        must_open(pair(candidate), CASE)


def test_a_module_of_other_names_is_not_opened() -> None:
    with pytest.raises(NotOpened, match="no linears by whose names"):
        must_open(pair(OtherNames, OtherNames), CASE)


# --- what the original drops -----------------------------------------------------------------------------------------


class DropsValues(CausalSelfAttention):
    """The original's own dropout is of something that masks do not stand for."""

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super()._heads(x)
        return q, k, F.dropout(v, self.attn_drop.p, self.training)


class DropsInItsOwnWay(CausalSelfAttention):
    """Its mask is drawn by a function that is no dropout, and would be drawn a second time."""

    def _merge(self, y: Tensor) -> Tensor:
        return super()._merge(y * (torch.rand_like(y) >= self.resid_drop.p) if self.training else y)


class DropsNoisily(CausalSelfAttention):
    """Draws more than a mask, and uses it."""

    def _merge(self, y: Tensor) -> Tensor:
        return super()._merge(y + self.attn_drop.p * torch.randn_like(y))


@pytest.mark.parametrize(
    ("original", "why"),
    [
        (DropsValues, "with its own masks put in gives another result"),
        (DropsInItsOwnWay, "the original draws random numbers in a way of its own"),
        (DropsNoisily, "the original draws random numbers in a way of its own"),
    ],
)
def test_an_original_that_drops_something_else_is_not_judged_by_masks(original: Any, why: str) -> None:
    with pytest.raises(NotOpened, match=why):
        must_open(pair(original, original), CASE)


def test_masks_for_an_original_that_drops_something_else_say_what() -> None:
    problem = pair().problem(CASE)
    masks = read_masks(problem, problem.reference, gradients=False)
    other = pair(original=DropsValues).problem(CASE).reference
    message = r"the original drops a tensor of shape \(2, 2, 9, 4\), neither probabilities nor output"
    with pytest.raises(NotOpened, match=message), inject(masks, other, CASE):
        run(problem, other)


def test_masks_of_another_number_of_attentions_do_not_fit() -> None:
    two, three = (gpts().problem(CASE.but(n_layer=n, vocab_size=5)) for n in (2, 3))
    masks = read_masks(two, two.reference, gradients=False)
    with (
        pytest.raises(NotOpened, match="the original has 3 attentions, the candidate 2"),
        inject(masks, three.reference, three.case),
    ):
        pass


def test_a_mask_put_in_is_what_is_dropped_and_at_the_original_s_own_rate() -> None:
    problem = pair().problem(CASE)
    kept = torch.zeros(2, 2, 9, 9, dtype=torch.bool)
    kept[..., 0] = True
    masks = Masks((kept,), (torch.ones(2, 9, 8, dtype=torch.bool),), ())
    with inject(masks, problem.reference, CASE) as put:
        run(problem, problem.reference)
    assert torch.equal(problem.reference.attention_weights != 0, kept)
    assert (put.attention_rates, put.residual_rates) == ([0.5], [0.25])
    probability = problem.reference.attention_weights[..., 0, 0]
    assert torch.equal(probability, torch.full_like(probability, 2.0))  # the first position sees itself alone
