"""Whatever a query sees in the original, masks are read off exactly, and no judgement by distribution takes their place."""

from itertools import cycle
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention
from equivcheck.cases.case import Case
from equivcheck.checks.base.check import CaseResult
from equivcheck.checks.dropout.dropout import dropout
from equivcheck.checks.dropout.exact import must_open, visible_in
from equivcheck.checks.modes import modes
from equivcheck.errors import Mismatch, NotOpened
from equivcheck.gpt import GPT
from equivcheck.pairs.pair import Pair
from equivcheck.pairs.resolve import resolve

CASE = Case(seq_len=6, n_head=2, head_size=4, block_size=6, training=True, attn_pdrop=0.25, resid_pdrop=0.1)


def near(T: int) -> Tensor:
    return (torch.arange(T) - torch.arange(T).unsqueeze(1)).abs() <= 3


def windowed(T: int) -> Tensor:
    return near(T).tril()


def wide(T: int) -> Tensor:
    """Causal in the case, and a window at the length at which masks are tested."""
    return torch.ones(T, T, dtype=torch.bool).tril().triu(-20)


def chunked(T: int) -> Tensor:
    return torch.arange(T) // 4 == torch.arange(T).unsqueeze(1) // 4


def prefixed(T: int) -> Tensor:
    return torch.ones(T, T, dtype=torch.bool).tril() | (torch.arange(T) < T // 2)


def bidirectional(T: int) -> Tensor:
    return torch.ones(T, T, dtype=torch.bool)


def by_head(T: int) -> Tensor:
    """Every second head is causal, of (2, T, T)."""
    return torch.stack((bidirectional(T), bidirectional(T).tril()))


EVERY = (bidirectional, near, windowed, wide, chunked, prefixed, by_head)


class Eager(nn.Module):
    """An attention in plain operations; those below get one thing wrong, or nothing."""

    sees: ClassVar[Any] = staticmethod(bidirectional)

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.key, self.query, self.value, self.proj = (nn.Linear(config.n_embd, config.n_embd) for _ in range(4))
        self.attn_drop, self.resid_drop = nn.Dropout(config.attn_pdrop), nn.Dropout(config.resid_pdrop)
        self.n_head = config.n_head

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).unflatten(-1, (self.n_head, -1)).transpose(1, 2) for f in (self.query, self.key, self.value))
        visible = self.sees(x.shape[1])  # (T, T) or (2, T, T)
        if visible.dim() == 3:
            visible = visible[torch.arange(self.n_head) % 2]
        y: Tensor = self.resid_drop(self.proj(self.attend(q, k, v, visible).transpose(1, 2).flatten(2)))
        return y

    def attend(self, q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
        s = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~visible, -torch.inf)
        return self.dropped(s.softmax(-1)) @ v

    def dropped(self, p: Tensor) -> Tensor:
        y: Tensor = self.attn_drop(p)
        return y


class Fused(Eager):
    """Right, by one call of torch's."""

    def attend(self, q: Tensor, k: Tensor, v: Tensor, visible: Tensor) -> Tensor:
        rate = self.attn_drop.p if self.attn_drop.training else 0.0
        mask = None if bool(visible.all()) else visible
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=rate)


class SharedByHeads(Eager):
    """Wrong from nine positions on, and from three heads on: all heads share one mask."""

    def dropped(self, p: Tensor) -> Tensor:
        if p.shape[1] < 3 or p.shape[-1] < 9:
            return super().dropped(p)
        shared: Tensor = self.attn_drop(torch.ones_like(p[:, :1]))
        return p * shared


class Unscaled(Eager):
    """Wrong from nine positions on."""

    def dropped(self, p: Tensor) -> Tensor:
        dropped = super().dropped(p)
        return dropped * (1 - self.attn_drop.p) if p.shape[-1] >= 9 and self.training else dropped


def seeing(sees: Any, kind: type) -> Any:
    return type(f"{kind.__name__}{sees.__name__}", (kind,), {"sees": staticmethod(sees)})


def pair(sees: Any, candidate: type) -> Pair:
    return resolve(seeing(sees, Eager), seeing(sees, candidate), kind="module", device="cpu")


def exact(result: CaseResult) -> None:
    assert not result.notes
    assert result.where is not None
    assert "distribution" not in result.where
    assert result.ratio is not None
    assert result.ratio <= 1


# --- visibility is read off the original -----------------------------------------------------------------------------


@pytest.mark.parametrize("sees", EVERY)
@pytest.mark.parametrize("length", [1, 4, 9, 23])  # D is 4: up to six readings
def test_what_a_query_sees_is_what_the_original_lets_it_see(sees: Any, length: int) -> None:
    case = CASE.but(seq_len=length, block_size=length, batch_size=2)
    (layer,) = visible_in(pair(sees, Fused), case).layers
    assert torch.equal(layer.expand(2, 2, length, length), sees(length).expand(2, 2, length, length))


def test_each_layer_of_a_model_has_a_visibility_of_its_own() -> None:
    def model(kind: type) -> Any:
        def build(config: Any) -> GPT:
            layers = cycle((seeing(windowed, kind), seeing(bidirectional, kind)))
            return GPT(config, attention=lambda c: next(layers)(c))

        return build

    subject = resolve(model(Eager), model(Fused), kind="model", device="cpu")
    case = CASE.but(n_layer=2, vocab_size=11, seq_len=9, block_size=9)
    first, second = visible_in(subject, case).layers
    assert torch.equal(first.expand(1, 1, 9, 9)[0, 0], windowed(9))
    assert bool(second.all())
    must_open(subject, case)
    assert "distribution" not in str(dropout(subject, case).where)


# --- right ones ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sees", EVERY)
def test_dropout_of_any_visibility_is_exact(sees: Any) -> None:
    exact(dropout(pair(sees, Fused), CASE))


@pytest.mark.parametrize("sees", [bidirectional, windowed])
@pytest.mark.parametrize("length", [1, 2, 65, 200])
def test_dropout_is_exact_at_any_length(sees: Any, length: int) -> None:
    case = CASE.but(seq_len=length, block_size=length, head_size=16, batch_size=2, dtype="bfloat16")
    exact(dropout(pair(sees, Fused), case))


@pytest.mark.parametrize("sees", [bidirectional, windowed])
def test_modes_of_any_visibility_are_exact(sees: Any) -> None:
    exact(modes(pair(sees, Fused), CASE.but(seq_len=20, block_size=20, steps="eht")))


def test_a_function_without_an_option_for_causality_is_exact() -> None:
    def eager(q: Tensor, k: Tensor, v: Tensor, *, dropout_p: float, scale: float) -> Tensor:
        return F.dropout((q @ k.mT * scale).softmax(-1), dropout_p) @ v

    def fused(q: Tensor, k: Tensor, v: Tensor, *, dropout_p: float, scale: float) -> Tensor:
        return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout_p, scale=scale)

    exact(dropout(resolve(eager, fused, kind="function", device="cpu"), CASE.but(resid_pdrop=0.0)))


# --- wrong ones ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sees", [bidirectional, windowed, by_head])
def test_a_mask_that_heads_share_from_some_length_on_is_seen(sees: Any) -> None:
    with pytest.raises(Mismatch, match=r"dropped places are not independent: those that lie 1 heads apart"):
        dropout(pair(sees, SharedByHeads), CASE)


@pytest.mark.parametrize("sees", [bidirectional, windowed])
def test_a_scale_that_is_missing_from_some_length_on_is_seen(sees: Any) -> None:
    long = CASE.but(seq_len=9, block_size=9, batch_size=2)
    with pytest.raises(Mismatch, match="times further from the oracle"):
        dropout(pair(sees, Unscaled), long)
    with pytest.raises(Mismatch, match="times further from the oracle"):
        modes(pair(sees, Unscaled), long)


class Block(CausalSelfAttention):
    """A block that is one layer: one dropout is called twice, and the input is added."""

    def forward(self, x: Tensor) -> Tensor:
        y = x + super().forward(x)
        return y + self.resid_drop(y.tanh())


class SdpaBlock(Block):
    """The same by a fused kernel."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).view(*x.shape[:2], self.n_head, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        rate = self.attn_drop.p if self.attn_drop.training else 0.0
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=rate)
        y = x + self.resid_drop(self.proj(y.transpose(1, 2).reshape(x.shape)))
        return y + self.resid_drop(y.tanh())


@pytest.mark.parametrize("seed", range(6))
def test_a_layer_that_returns_more_than_its_linear_is_not_opened(seed: int) -> None:
    """In so small a case its dropouts often drop nothing, and the masks seem to be read off."""
    subject = resolve(Block, SdpaBlock, kind="module", device="cpu")
    case = CASE.but(batch_size=1, seq_len=1, n_head=2, head_size=1, block_size=1, dtype="float64", seed=seed)
    with pytest.raises(NotOpened, match="more than what leaves its last linear"):
        must_open(subject, case)
    for check in (dropout, modes):
        assert any("masks cannot be read off" in note for note in check(subject, case).notes)


class DropsQueries(CausalSelfAttention):
    """Queries are dropped, and no probabilities."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (f(x).view(*x.shape[:2], self.n_head, -1).transpose(1, 2) for f in (self.query, self.key, self.value))
        y = F.scaled_dot_product_attention(self.attn_drop(q), k, v, is_causal=True)
        return self.resid_drop(self.proj(y.transpose(1, 2).reshape(x.shape)))


@pytest.mark.parametrize("seed", range(6))
def test_an_original_that_drops_elsewhere_is_not_opened_by_chance(seed: int) -> None:
    subject = resolve(DropsQueries, DropsQueries, kind="module", device="cpu")
    case = CASE.but(batch_size=1, seq_len=1, n_head=1, head_size=1, block_size=1, dtype="float64", seed=seed)
    with pytest.raises(NotOpened):
        must_open(subject, case)
