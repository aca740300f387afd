"""The cause of a difference inside of a module, a model or a function: the right one with its numbers, or none."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.engine.causes import causes_of
from equivcheck.engine.causes.fitting import best, factor_of, round_numbers
from equivcheck.gpt import GPT
from equivcheck.pairs.resolve import resolve
from equivcheck.report.diagnosis import Cause

SMALL = Case(batch_size=1, seq_len=2, block_size=2, head_size=2)
LARGE = Case(batch_size=2, seq_len=40, block_size=48, n_head=2, head_size=8, attn_pdrop=0.1)
Core = Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]


def softmax(
    module: nn.Module, q: Tensor, k: Tensor, v: Tensor, seen: Tensor | None = None, scale: float = 1.0
) -> Tensor:
    """The original's attention, or one that sees other keys or scales the scores once more."""
    scores = q @ k.mT * (scale / math.sqrt(q.size(-1)))
    seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril() if seen is None else seen
    return module.drop(scores.masked_fill(~seen, -math.inf).softmax(-1)) @ v  # type: ignore[operator, no-any-return]


class Attention(nn.Module):
    """One projection for q, k, v, and an attention that is given."""

    def __init__(self, config: Any, core: Core = softmax) -> None:
        super().__init__()
        self.core, self.n_head, self.p = core, config.n_head, config.attn_pdrop
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.drop, self.resid = nn.Dropout(config.attn_pdrop), nn.Dropout(config.resid_pdrop)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.c_attn(x).view(*x.shape[:2], 3, self.n_head, -1).permute(2, 0, 3, 1, 4)
        return self.resid(self.c_proj(self.core(self, q, k, v).transpose(1, 2).reshape(x.shape)))  # type: ignore[no-any-return]


def places(x: Tensor) -> tuple[Tensor, Tensor]:
    at = torch.arange(x.size(-2))
    return at[:, None], at[None]


def window(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, keys: int) -> Tensor:
    i, j = places(q)
    return softmax(module, q, k, v, (j <= i) & (i - j < keys))


def chunk(module: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    i, j = places(q)
    return softmax(module, q, k, v, (j <= i) & (i // 16 == j // 16))


def offset(module: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    i, j = places(q)
    return softmax(module, q, k, v, j <= i + 2)


def shared(module: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    read = torch.arange(q.size(1)) // 2 * 2
    return softmax(module, q, k[:, read], v[:, read])


def capped(module: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    i, j = places(q)
    scores = 5 * torch.tanh(q @ k.mT / math.sqrt(q.size(-1)) / 5)
    return module.drop(scores.masked_fill(j > i, -math.inf).softmax(-1)) @ v  # type: ignore[operator, no-any-return]


def dropping(module: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=module.p)  # type: ignore[arg-type]


def silent(module: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    y = softmax(module, q, k, v)
    return torch.cat((y[..., :-1], y[..., -1:] * 1.1), -1)  # of the last channel


def causes(reference: Any, candidate: Any, kind: str = "module", *cases: Case, gradients: bool = True) -> list[Cause]:
    pair = resolve(reference, candidate, kind=kind, device="cpu")
    return list(causes_of(pair, cases or (SMALL, LARGE), gradients=gradients))


def named(given: list[Cause]) -> list[tuple[str, dict[str, Any]]]:
    return [(cause.id, dict(cause.parameters)) for cause in given]


@pytest.mark.parametrize(
    ("core", "name", "parameters"),
    [
        (partial(window, keys=5), "window", {"keys": 5}),
        (partial(window, keys=23), "window", {"keys": 23}),
        (chunk, "chunk", {"keys": 16}),
        (offset, "offset", {"keys": 2}),
        (partial(softmax, scale=1.3), "scale", {"factor": 1.3}),
        (shared, "heads-shared", {"heads": 2}),
        (capped, "cap", {"cap": 5.0}),
        (lambda m, q, k, v: softmax(m, q, k.detach(), v), "gradient", {"of": "keys", "factor": 0.0}),
        (
            lambda m, q, k, v: softmax(m, q, k, v.detach() + (v - v.detach()) * 0.7),
            "gradient",
            {"of": "values", "factor": 0.7},
        ),
        (dropping, "dropout-in-eval", {}),
    ],
)
def test_a_reading_that_is_built_in_is_the_cause(core: Core, name: str, parameters: dict[str, Any]) -> None:
    (given,) = named(causes(Attention, partial(Attention, core=core)))
    assert given == (name, pytest.approx(parameters))


def test_what_no_reading_explains_has_no_cause() -> None:
    assert causes(Attention, partial(Attention, core=silent)) == []


def test_a_right_candidate_has_no_cause() -> None:
    assert causes(CausalSelfAttention, FlashCausalSelfAttention) == []


def test_dropout_that_is_off_in_training_is_a_cause() -> None:
    class Never(Attention):
        def forward(self, x: Tensor) -> Tensor:
            self.drop.p = self.resid.p = 0.0
            return super().forward(x)

    given = causes(Attention, Never, "module", LARGE.but(training=True))
    assert named(given) == [("dropout-off-in-training", {})]


def test_dropout_that_one_position_does_not_show_is_not_called_off() -> None:
    class OnScores(Attention):
        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.c_attn(x).view(*x.shape[:2], 3, self.n_head, -1).permute(2, 0, 3, 1, 4)
            scores = self.drop(q @ k.mT / math.sqrt(q.size(-1)))
            seen = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
            y = scores.masked_fill(~seen, -math.inf).softmax(-1) @ v
            return self.resid(self.c_proj(y.transpose(1, 2).reshape(x.shape)))  # type: ignore[no-any-return]

    assert causes(Attention, OnScores, "module", SMALL.but(seq_len=1, training=True, attn_pdrop=0.5)) == []


def test_the_attention_is_seen_in_a_fused_call_too() -> None:
    def causal(module: nn.Module, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)

    given = causes(partial(Attention, core=causal), partial(Attention, core=partial(window, keys=7)))
    assert named(given) == [("window", {"keys": 7})]


def test_a_whole_model_has_a_cause() -> None:
    windowed = partial(GPT, attention=partial(Attention, core=partial(window, keys=6)))
    case = Case(batch_size=2, seq_len=30, block_size=32, n_head=3, head_size=4, n_layer=2, vocab_size=11)
    assert named(causes(partial(GPT, attention=Attention), windowed, "model", case)) == [("window", {"keys": 6})]


def test_a_function_of_an_original_without_options_has_a_cause() -> None:
    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return torch.einsum("bhts,bhsd->bhtd", torch.einsum("bhtd,bhsd->bhts", q, k).mul(0.5).softmax(-1), v)

    def sharper(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.mT * 0.8).softmax(-1) @ v

    case = Case(batch_size=2, seq_len=30, block_size=30, n_head=3, head_size=4, is_causal=False)
    assert named(causes(plain, sharper, "function", case)) == [("scale", {"factor": pytest.approx(1.6)})]


def test_a_gradient_that_is_lost_altogether_has_a_cause() -> None:
    def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return (q @ k.mT * 0.5).softmax(-1) @ v

    def lost(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return plain(q, k.detach(), v)

    case = Case(batch_size=2, seq_len=30, block_size=30, n_head=3, head_size=4, is_causal=False)
    assert named(causes(plain, lost, "function", case)) == [("gradient", {"of": "keys", "factor": 0.0})]


def test_an_original_without_products_has_no_cause() -> None:
    def mean(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return v.mean(-2, keepdim=True).expand(q.shape)

    case = Case(batch_size=2, seq_len=8, block_size=8, n_head=3, head_size=4, is_causal=False)
    assert causes(mean, lambda q, k, v: mean(q, k, v) * 2, "function", case) == []


def test_the_number_with_the_smallest_error_is_between_the_bounds() -> None:
    assert best(lambda x: abs(math.log(x / 1.3)), 1e-2, 1e2) == pytest.approx(1.3, rel=1e-4)
    assert best(lambda x: math.nan if x > 2 else abs(x - 0.7), 1e-2, 1e2) == pytest.approx(0.7, rel=1e-3)


def test_a_factor_is_that_of_the_least_squares() -> None:
    zero, one = {"a": torch.zeros(3), "b": torch.ones(2)}, {"a": torch.ones(3), "b": torch.ones(2) * 3}
    results: dict[str, Tensor | None] = {"a": torch.full((3,), 0.25), "b": torch.full((2,), 1.5)}
    assert factor_of(results, zero, one) == pytest.approx(0.25)
    assert factor_of(results, zero, zero) is None


def test_a_number_is_rounded_to_ever_more_digits() -> None:
    assert list(round_numbers(1.29999)) == [1.0, 1.3, 1.3, 1.3, 1.29999]
    assert next(iter(round_numbers(1e-5))) == 0.0
