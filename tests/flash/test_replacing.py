"""Replacing the attentions of a model: what was replaced is fused, and everything else is as it was."""

import copy
import warnings

import pytest
import torch
from foreign_attentions import Foreign, Nameless, Windowed, attentions, config, ids
from torch import nn
from torch.nn.utils import parametrize

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention, replace_attention_with_flash_attention
from equivcheck.gpt import GPT


@pytest.fixture
def model() -> GPT:
    torch.manual_seed(0)
    model = GPT(config())
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.5)
    return model


def test_every_attention_is_replaced_in_place_and_the_model_returned(model: GPT) -> None:
    before = attentions(model)
    assert replace_attention_with_flash_attention(model) is model
    assert attentions(model) == before
    assert all(type(m) is FlashCausalSelfAttention for m in before)


def test_logits_stay_the_same_up_to_rounding(model: GPT) -> None:
    model.double().eval()
    before = model(ids())[0]
    torch.testing.assert_close(replace_attention_with_flash_attention(model)(ids())[0], before, rtol=1e-10, atol=1e-10)


def test_probabilities_of_the_past_are_dropped(model: GPT) -> None:
    model(ids())
    replace_attention_with_flash_attention(model)
    assert all(m.attention_weights is None for m in attentions(model))


def test_parameters_buffers_and_submodules_are_the_same_objects(model: GPT) -> None:
    parts = [*model.parameters(), *model.buffers(), *model.modules()]
    replace_attention_with_flash_attention(model)
    assert all(a is b for a, b in zip(parts, [*model.parameters(), *model.buffers(), *model.modules()], strict=True))


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_kept(model: GPT, training: bool) -> None:
    model.train(training)
    model.blocks[0].attn.attn_drop.train(not training)
    replace_attention_with_flash_attention(model)
    assert model.blocks[1].attn.training is training
    assert model.blocks[0].attn.attn_drop.training is not training


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_dtype_is_kept(model: GPT, dtype: torch.dtype) -> None:
    replace_attention_with_flash_attention(model.to(dtype))
    assert {p.dtype for p in model.parameters()} == {dtype}
    assert model.eval()(ids())[0].dtype is dtype


def test_frozen_parameters_stay_frozen(model: GPT) -> None:
    model.blocks[0].attn.key.requires_grad_(False)
    replace_attention_with_flash_attention(model)
    assert not model.blocks[0].attn.key.weight.requires_grad
    assert model.blocks[0].attn.query.weight.requires_grad


def test_an_optimizer_built_before_still_trains_the_model(model: GPT) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    replace_attention_with_flash_attention(model)
    before = model.blocks[0].attn.key.weight.detach().clone()
    model(ids(), ids())[1].backward()
    optimizer.step()
    assert not torch.equal(model.blocks[0].attn.key.weight, before)


def test_hooks_go_on_being_called(model: GPT) -> None:
    called: list[str] = []
    model.blocks[0].attn.register_forward_hook(lambda *_: called.append("attention"))
    model.blocks[0].attn.value.register_forward_hook(lambda *_: called.append("value"))
    replace_attention_with_flash_attention(model)(ids())
    assert called == ["value", "attention"]


def test_rates_changed_by_hand_are_kept(model: GPT) -> None:
    model.blocks[0].attn.attn_drop.p = 0.7
    assert replace_attention_with_flash_attention(model).blocks[0].attn.attn_drop.p == 0.7


def test_an_attention_shared_by_two_blocks_stays_shared(model: GPT) -> None:
    model.blocks[1].attn = model.blocks[0].attn
    replace_attention_with_flash_attention(model)
    assert model.blocks[1].attn is model.blocks[0].attn
    assert type(model.blocks[0].attn) is FlashCausalSelfAttention


def test_weights_tied_by_hand_stay_tied(model: GPT) -> None:
    model.blocks[1].attn.key.weight = model.blocks[0].attn.key.weight
    replace_attention_with_flash_attention(model)
    assert model.blocks[1].attn.key.weight is model.blocks[0].attn.key.weight


def test_a_model_that_is_itself_an_attention_is_replaced() -> None:
    module = CausalSelfAttention(config())
    assert replace_attention_with_flash_attention(module) is module
    assert type(module) is FlashCausalSelfAttention


def test_attentions_of_different_sizes_keep_their_own_heads() -> None:
    original = nn.ModuleList([CausalSelfAttention(config(n_head=h)).double().eval() for h in (1, 2, 4)])
    flash = replace_attention_with_flash_attention(copy.deepcopy(original))
    x = torch.randn(2, 5, 8, dtype=torch.float64)
    for its, ours in zip(original, flash, strict=True):
        assert ours.n_head == its.n_head
        torch.testing.assert_close(ours(x), its(x), rtol=1e-10, atol=1e-10)


def test_replacing_twice_is_replacing_once(model: GPT) -> None:
    replace_attention_with_flash_attention(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert replace_attention_with_flash_attention(model) is model
    assert all(type(m) is FlashCausalSelfAttention for m in attentions(model))


def test_a_subclass_is_left_alone_and_named_in_a_warning(model: GPT) -> None:
    model.blocks[1].attn = Windowed(config())
    with pytest.warns(UserWarning, match=r"blocks\.1\.attn \(Windowed\)"):
        replace_attention_with_flash_attention(model)
    assert [type(m) for m in attentions(model)] == [FlashCausalSelfAttention, Windowed]


def test_a_model_of_nothing_but_subclasses_is_left_alone_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="the model itself"):
        assert type(replace_attention_with_flash_attention(Windowed(config()))) is Windowed


def test_a_subclass_that_is_the_target_is_replaced() -> None:
    module = replace_attention_with_flash_attention(Windowed(config()), target=Windowed)
    assert isinstance(module, FlashCausalSelfAttention)
    assert isinstance(module, Windowed)


def test_nothing_to_replace_is_an_error_that_names_what_is_there() -> None:
    with pytest.raises(
        ValueError, match=r"CausalSelfAttention in Linear: nothing was replaced; pass target=.* are Linear$"
    ):
        replace_attention_with_flash_attention(nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"Foreign in GPT.* are GPT, Embedding, .*CausalSelfAttention"):
        replace_attention_with_flash_attention(GPT(config()), target=Foreign)


def test_what_was_replaced_for_one_target_does_not_count_for_another(model: GPT) -> None:
    replace_attention_with_flash_attention(model)
    with pytest.raises(ValueError, match="Foreign"):
        replace_attention_with_flash_attention(model, target=Foreign)


def test_an_attribute_that_is_missing_is_named_and_nothing_is_replaced() -> None:
    model = nn.ModuleList([Nameless(), Nameless()])
    with pytest.raises(
        ValueError, match=r"0 is a Nameless without key, query, value, proj, attn_drop, resid_drop, mask: "
    ):
        replace_attention_with_flash_attention(model, target=Nameless)
    broken = nn.ModuleList([CausalSelfAttention(config()), CausalSelfAttention(config())])
    del broken[1].resid_drop
    with pytest.raises(ValueError, match="1 is a CausalSelfAttention without resid_drop: nothing was replaced"):
        replace_attention_with_flash_attention(broken)
    assert [type(m) for m in broken] == [CausalSelfAttention] * 2


def test_a_forward_pass_set_on_the_instance_is_left_alone_and_named(model: GPT) -> None:
    model.blocks[0].attn.forward = lambda x: x
    with pytest.warns(UserWarning, match=r"blocks\.0\.attn \(its forward is set on the instance\)"):
        replace_attention_with_flash_attention(model)
    assert [type(m) for m in attentions(model)] == [CausalSelfAttention, FlashCausalSelfAttention]


def test_an_attention_that_is_itself_parametrized_is_left_alone_and_named(model: GPT) -> None:
    parametrize.register_parametrization(model.blocks[0].attn, "mask", nn.Identity())
    with pytest.warns(UserWarning, match=r"blocks\.0\.attn \(ParametrizedCausalSelfAttention\)"):
        replace_attention_with_flash_attention(model)


def test_the_class_itself_stays_as_it_was(model: GPT) -> None:
    before = dict(vars(CausalSelfAttention))
    replace_attention_with_flash_attention(model)
    assert dict(vars(CausalSelfAttention)) == before
    assert type(GPT(config()).blocks[0].attn) is CausalSelfAttention


def test_an_attention_inside_of_another_is_replaced_too() -> None:
    outer = CausalSelfAttention(config())
    outer.value = nn.Sequential(CausalSelfAttention(config()))
    replace_attention_with_flash_attention(outer)
    assert type(outer.value[0]) is FlashCausalSelfAttention


def test_a_compiled_model_is_replaced_and_compiled_again(model: GPT) -> None:
    compiled = torch.compile(model.double().eval(), backend="eager", fullgraph=True)
    before = compiled(ids())[0]
    assert replace_attention_with_flash_attention(compiled) is compiled
    assert all(type(m) is FlashCausalSelfAttention for m in attentions(compiled))
    torch.testing.assert_close(compiled(ids())[0], before, rtol=1e-10, atol=1e-10)


def test_a_frozen_bfloat16_model_in_eval_trains_what_it_trained(model: GPT) -> None:
    model.bfloat16().eval().requires_grad_(False)
    model.blocks[1].attn.proj.requires_grad_(True)
    replace_attention_with_flash_attention(model)
    model(ids(), ids())[1].backward()
    trained = [name for name, p in model.named_parameters() if p.grad is not None]
    assert trained == ["blocks.1.attn.proj.weight", "blocks.1.attn.proj.bias"]


def test_the_state_of_an_optimizer_goes_on_counting(model: GPT) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    for _ in range(2):
        model(ids(), ids())[1].backward()
        optimizer.step()
        replace_attention_with_flash_attention(model)
    assert {int(state["step"]) for state in optimizer.state.values()} == {2}
