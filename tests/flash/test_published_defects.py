"""What a published drop-in breaks, a row each: this one does what the original does."""

import pytest
import torch
from drop_in import asked_of_the_kernel, config, inputs, pair, results, same
from torch import Tensor

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention, replace_attention_with_flash_attention
from equivcheck.gpt import GPT


@pytest.fixture
def model() -> GPT:
    torch.manual_seed(0)
    return GPT(config())


def ids() -> Tensor:
    return torch.randint(11, (2, 6), generator=torch.Generator().manual_seed(1))


def test_a_model_in_eval_is_deterministic_after_replacing(model: GPT) -> None:
    before = model.double().eval()(ids())[0]
    replace_attention_with_flash_attention(model)
    assert torch.equal(model(ids())[0], model(ids())[0])
    same(model(ids())[0], before)


def test_a_bfloat16_model_runs_after_replacing(model: GPT) -> None:
    replace_attention_with_flash_attention(model.bfloat16())
    assert model(ids())[0].dtype is torch.bfloat16


def test_a_frozen_model_is_frozen_after_replacing(model: GPT) -> None:
    replace_attention_with_flash_attention(model.requires_grad_(False))
    assert not any(p.requires_grad for p in model.parameters())


def test_an_optimizer_built_before_replacing_has_every_parameter(model: GPT) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    replace_attention_with_flash_attention(model)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert {id(p) for p in model.parameters()} == held


def test_a_forward_hook_on_an_attention_fires_after_replacing(model: GPT) -> None:
    fired: list[bool] = []
    model.blocks[1].attn.register_forward_hook(lambda *_: fired.append(True))
    replace_attention_with_flash_attention(model)(ids())
    assert fired == [True]


def test_a_rate_set_before_replacing_is_obeyed(model: GPT, monkeypatch: pytest.MonkeyPatch) -> None:
    model.blocks[0].attn.attn_drop.p = 0
    replace_attention_with_flash_attention(model.train())
    calls = asked_of_the_kernel(monkeypatch)
    model(ids())
    assert [call["dropout_p"] for call in calls] == [0.0, 0.3]


def test_an_attention_of_two_blocks_is_one_after_replacing(model: GPT) -> None:
    model.blocks[1].attn = model.blocks[0].attn
    replace_attention_with_flash_attention(model)
    assert model.blocks[0].attn is model.blocks[1].attn
    assert isinstance(model.blocks[0].attn, FlashCausalSelfAttention)


def test_blocks_keep_their_own_numbers_of_heads_after_replacing(model: GPT) -> None:
    model.blocks[1].attn = CausalSelfAttention(config(n_head=4))
    before = model.double().eval()(ids())[0]
    same(replace_attention_with_flash_attention(model)(ids())[0], before)


def test_an_attention_as_the_root_is_replaced() -> None:
    module = CausalSelfAttention(config())
    assert isinstance(replace_attention_with_flash_attention(module), FlashCausalSelfAttention)


def test_a_sequence_past_the_block_is_refused_as_the_original_refuses_it() -> None:
    for module in pair():
        with pytest.raises(RuntimeError):
            module(inputs(1, 9, 8))


def test_a_mask_that_the_user_edited_is_obeyed() -> None:
    def prefix(module: CausalSelfAttention) -> None:
        module.mask[..., :3, :3] = 1

    original, flash = pair(prefix)
    same(results(flash, inputs()), results(original, inputs()))
    assert not torch.allclose(flash(inputs()), pair()[1](inputs()))


def test_a_kernel_may_stop_a_nan_of_the_future_that_the_original_spreads() -> None:
    """Recorded and not judged: 0 x NaN is the original's, and no use of it."""
    x = inputs()
    x[:, -1] = torch.nan
    its, ours = (module(x) for module in pair())
    assert its.isnan().all()
    assert ours[:, -1].isnan().all()


def test_scores_beyond_float16_may_stay_finite_in_a_kernel() -> None:
    """Recorded and not judged: the drop-in has no infinity of its own where the original has none."""
    for factor, finite in ((1, True), (200, False)):
        its, ours = (module.half()(inputs(dtype=torch.float16) * factor) for module in pair())
        assert bool(its.isfinite().all()) is finite
        assert ours.isfinite().all() or not finite
