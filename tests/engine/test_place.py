"""Where a difference begins: the innermost submodule that is wrong when it is given the original's input."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention, replace_attention_with_flash_attention
from equivcheck.cases.case import Case
from equivcheck.engine.innermost import innermost
from equivcheck.engine.place import Place, place
from equivcheck.gpt import GPT
from equivcheck.pairs.resolve import resolve
from equivcheck.pairs.submodule_calls import recorded

CASE = Case(batch_size=2, seq_len=5, n_head=2, head_size=4, block_size=8, n_layer=3, vocab_size=11)


class Shifted(CausalSelfAttention):
    """The weights of a query are those of its neighbour."""

    def _probabilities(self, q: Tensor, k: Tensor) -> Tensor:
        return super()._probabilities(q, k).roll(1, dims=1)


class Detached(CausalSelfAttention):
    """Nothing flows back through the values."""

    def _heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = super()._heads(x)
        return q, k, v.detach()


class NotBiased(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) - self.bias


class Rounded(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).to(torch.bfloat16).to(input.dtype)


class Raising(nn.LayerNorm):
    def forward(self, input: Tensor) -> Tensor:
        raise RuntimeError("no")


def become(kind: type[nn.Module], name: str) -> Callable[[nn.Module], nn.Module]:
    """A change of one submodule of a model to another class, with the same weights."""

    def change(model: nn.Module) -> nn.Module:
        model.get_submodule(name).__class__ = kind  # type: ignore[assignment]
        return model

    return change


def place_of(
    change: Callable[[nn.Module], nn.Module],
    *,
    attention: Any = CausalSelfAttention,
    kind: str = "model",
    case: Case = CASE,
    check: str = "logits",
) -> Place:
    def candidate(config: Any) -> nn.Module:
        return change(GPT(config, attention=attention))

    subject = resolve(GPT, change if kind == "replacement" else candidate, kind=kind, device="cpu")
    return place(subject, check, [case])


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (Shifted, "blocks.1.attn"),
        (Detached, "blocks.1.attn"),
        (NotBiased, "blocks.2.ln1"),
        (Rounded, "blocks.0.mlp.2"),
        (Rounded, "head"),
    ],
)
@pytest.mark.parametrize("of_pair", ["model", "replacement"])
def test_the_wrong_submodule_is_named(kind: type[nn.Module], name: str, of_pair: str) -> None:
    begins = place_of(become(kind, name), kind=of_pair)
    assert begins.module == name
    assert begins.beside == ("before blocks.1.attn.proj" if kind is Shifted else "")
    assert begins.layers[name] > 1.0


def test_beside_other_right_kernels_the_wrong_submodule_is_named() -> None:
    begins = place_of(become(NotBiased, "blocks.1.ln2"), attention=FlashCausalSelfAttention)
    assert begins.module == "blocks.1.ln2"
    assert begins.layers["blocks.0"] <= 1.0


def test_of_two_wrong_submodules_the_first_is_named() -> None:
    def both(model: nn.Module) -> nn.Module:
        return become(NotBiased, "blocks.1.ln1")(become(Shifted, "blocks.2.attn")(model))

    assert place_of(both).module == "blocks.1.ln1"


def test_of_wrong_backward_passes_the_last_is_named() -> None:
    def both(model: nn.Module) -> nn.Module:
        return become(Detached, "blocks.0.attn")(become(Detached, "blocks.2.attn")(model))

    assert place_of(both).module == "blocks.2.attn"


def test_a_submodule_that_is_wrong_in_training_mode_is_named() -> None:
    class Wrong(nn.LayerNorm):
        def forward(self, input: Tensor) -> Tensor:
            return super().forward(input) * (2 if self.training else 1)

    assert place_of(become(Wrong, "ln_f"), case=CASE.but(training=True)).module == "ln_f"
    assert place_of(become(Wrong, "ln_f")) == Place()


def test_nothing_is_named_in_a_right_pair() -> None:
    assert place_of(lambda model: model) == Place()
    assert place_of(replace_attention_with_flash_attention, kind="replacement") == Place()
    assert place_of(lambda model: model, attention=FlashCausalSelfAttention) == Place()


class Between(nn.Module):
    """A block that forgets its input before the MLP."""

    ln1: nn.Module
    ln2: nn.Module
    attn: nn.Module
    mlp: nn.Module

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn(self.ln1(x))
        y: Tensor = x + self.mlp(self.ln2(x))
        return y


class Doubled(GPT):
    def forward(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        logits, loss = super().forward(*args, **kwargs)
        return logits * 2, loss


class Flipped(GPT):
    """Where gradients are wanted, the model turns the input of its blocks round."""

    def forward(self, idx: Tensor, targets: Tensor | None = None, return_attentions: bool = False) -> tuple[Any, ...]:
        x = self._summed(self.tok_emb(idx) + self.pos_emb[:, : idx.size(1)])
        for block in self.blocks:
            x = block(x.flip(1) if torch.is_grad_enabled() else x)
        return self.head(self.ln_f(x)), None

    def _summed(self, x: Tensor) -> Tensor:
        return self.drop(x)  # type: ignore[no-any-return]  # nn.Module calls are Any


class WithoutDrop(Flipped):
    def _summed(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize(
    ("kind", "name", "module", "beside"),
    [
        (Between, "blocks.1", "blocks.1", "before blocks.1.ln2"),
        (Doubled, "", "", "after head"),
        (Flipped, "", "", "before blocks.0"),
    ],
)
def test_a_fault_between_submodules_is_in_what_is_around_them(
    kind: type[nn.Module], name: str, module: str, beside: str
) -> None:
    begins = place_of(become(kind, name))
    assert (begins.module, begins.beside) == (module, beside)


def test_nothing_is_claimed_of_code_around_submodules_that_differ_in_name() -> None:
    """`drop` is not called in the candidate: the difference may lie in what it does instead."""
    assert place_of(become(WithoutDrop, "")) == Place()


def test_in_an_attention_a_wrong_projection_is_named_and_not_the_whole() -> None:
    class Projected(CausalSelfAttention):
        def __init__(self, config: Any) -> None:
            super().__init__(config)
            become(Rounded, "proj")(self)

    def of(candidate: type[nn.Module]) -> Place:
        subject = resolve(CausalSelfAttention, candidate, kind="module", device="cpu")
        return place(subject, "output", [CASE.but(n_layer=0)])

    assert of(Projected).module == "proj"
    assert of(Shifted) == of(FlashCausalSelfAttention) == Place()


def test_a_difference_that_is_made_good_is_not_named() -> None:
    class Block(Between):
        def forward(self, x: Tensor) -> Tensor:
            x = x + self.attn(self.ln1(x) + self.ln1.bias)
            y: Tensor = x + self.mlp(self.ln2(x))
            return y

    def change(model: nn.Module) -> nn.Module:
        model = become(NotBiased, "blocks.0.ln1")(become(Block, "blocks.0")(model))
        return become(Shifted, "blocks.1.attn")(model)

    assert place_of(change).module == "blocks.1.attn"


def test_without_values_or_where_a_side_raises_nothing_is_named() -> None:
    assert place_of(become(NotBiased, "ln_f"), check="interface") == Place()
    assert place_of(become(Raising, "ln_f")) == Place()


def test_with_dropout_the_case_without_it_is_looked_at() -> None:
    dropping = CASE.but(training=True, attn_pdrop=0.1, resid_pdrop=0.1)
    assert place_of(become(NotBiased, "ln_f"), case=dropping).module == "ln_f"


def test_what_records_a_model_leaves_it_as_it_was() -> None:
    model = GPT(CASE.config()).eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    tokens = torch.zeros(1, 3, dtype=torch.long)

    def run() -> None:
        model(tokens)[0].sum().backward()
        model(tokens)

    calls = recorded(model, run)
    assert [call.name for call in calls][:3] == ["", "tok_emb", "drop"]
    assert all(call.upstream for call in calls[1:])
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert torch.equal(generator, torch.get_rng_state())
    for module in model.modules():
        kept = [hooks for name, hooks in vars(module).items() if "_hooks" in name and isinstance(hooks, dict)]
        assert len(kept) > 4
        assert not any(kept)


TREE: dict[str, Sequence[str]] = {"a": ("b", "c"), "b": ("d", "e"), "c": ("f",)}


@pytest.mark.parametrize(
    ("wrong", "unknown", "innermost_one", "clear"),
    [
        ("a", "", "a", True),
        ("abe", "", "e", True),
        ("ab", "", "b", True),
        ("ac", "", "c", True),
        ("abc", "", "b", True),
        ("ae", "", "a", False),  # b makes it good, and may hide it from a
        ("ae", "b", "e", True),
        ("a", "c", "a", False),
        ("ab", "d", "b", False),
    ],
)
def test_of_nested_parts_the_innermost_wrong_one_is_taken(
    wrong: str, unknown: str, innermost_one: str, clear: bool
) -> None:
    answer = innermost("a", TREE, lambda part: None if part in unknown else part in wrong)
    assert answer == (innermost_one, clear)
