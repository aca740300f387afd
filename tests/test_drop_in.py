"""The drop-in does what the original does: what a published one breaks, a row each, and what else a module is used with."""

import copy
import gc
import io
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.utils import parametrizations, parametrize
from torch.utils.checkpoint import checkpoint

from equivcheck.attention import CausalSelfAttention, FlashCausalSelfAttention, replace_attention_with_flash_attention
from equivcheck.flash import causal_mask, sdpa
from equivcheck.flash.causal_mask import is_causal
from equivcheck.gpt import GPT, GPTConfig

Change = Callable[[CausalSelfAttention], Any]


def config(**changes: Any) -> GPTConfig:
    sizes = {
        "vocab_size": 11,
        "block_size": 8,
        "n_layer": 2,
        "n_head": 2,
        "n_embd": 8,
        "attn_pdrop": 0.3,
        "resid_pdrop": 0.1,
    }
    return GPTConfig(**(sizes | changes))


def pair(change: Change = lambda _: None, **changes: Any) -> tuple[CausalSelfAttention, FlashCausalSelfAttention]:
    """Original and drop-in in float64 and eval, of the same random weights; `change` is done to both."""
    torch.manual_seed(0)
    original = CausalSelfAttention(config(**changes)).double().eval()
    with torch.no_grad():
        for parameter in original.parameters():
            parameter.normal_(std=0.4)
    flash = replace_attention_with_flash_attention(copy.deepcopy(original))
    for module in (original, flash):
        change(module)
    return original, flash


def inputs(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape or (3, 6, 8), generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)


def same(mine: Any, its: Any) -> None:
    torch.testing.assert_close(mine, its, rtol=1e-9, atol=1e-9, equal_nan=True)


def results(module: nn.Module, x: Tensor) -> list[Tensor | None]:
    """Output, gradient of the input, gradients of what is trained."""
    x = x.clone().requires_grad_()
    y = module(x)
    trained = [p for p in module.parameters() if p.requires_grad]
    upstream = inputs(*y.shape, dtype=y.dtype)
    return [y, *torch.autograd.grad(y, [x, *trained], upstream, allow_unused=True)]


def asked_of_the_kernel(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the kernel is asked for from now on, call by call."""
    calls: list[dict[str, Any]] = []
    kernel = F.scaled_dot_product_attention

    def listening(*tensors: Tensor, **options: Any) -> Tensor:
        calls.append({"B, H": tuple(tensors[0].shape[:2])} | options)
        return kernel(*tensors, **options)

    monkeypatch.setattr(F, "scaled_dot_product_attention", listening)
    return calls


# --- what the published drop-in breaks, row by row -------------------------------------------------------------------


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


def test_second_derivatives_are_the_originals() -> None:
    found = []
    for module in pair():
        x = inputs().requires_grad_()
        (first,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
        second = torch.autograd.grad(
            first.square().sum(), [x, *module.parameters()], create_graph=True, allow_unused=True
        )
        third = torch.autograd.grad(second[0].square().sum(), [x, module.value.weight])
        found.append([first, *second, *third])
    same(*found)


class Careless(torch.autograd.Function):
    """A kernel like cuDNN's: no second derivatives, and given no gradient it hands on memory that nobody has written to."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, dropped: Tensor) -> Tensor:
        ctx.set_materialize_grads(False)
        with torch.enable_grad():
            ctx.inputs = [t.detach().requires_grad_() for t in (q, k, v)]
            q, k, v = ctx.inputs
            future = torch.ones(q.size(-2), q.size(-2), dtype=torch.bool).triu(1)
            p = (q @ k.mT / q.size(-1) ** 0.5).masked_fill(future, -torch.inf).softmax(-1)
            ctx.y = (p * dropped) @ v
        return ctx.y.detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, g: Tensor | None) -> tuple[Tensor | None, ...]:
        if g is None:
            return *(torch.full_like(t, torch.nan) for t in ctx.inputs), None
        return *torch.autograd.grad(ctx.y, ctx.inputs, g, retain_graph=True), None


@pytest.mark.parametrize("rate", [0.0, 0.4])
@pytest.mark.parametrize("heads_at_once", [5, 65535])
def test_second_derivatives_are_right_where_the_kernel_answers_no_gradient_with_any_gradient(
    rate: float, heads_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sdpa, "HEADS_AT_ONCE", heads_at_once)
    monkeypatch.setattr(sdpa, "UNLIMITED", ())
    original, flash = pair(attn_pdrop=rate, resid_pdrop=0.0)
    dropped = (torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(2)) >= rate).double() / (1 - rate)
    original.attn_drop = nn.Identity()
    original.attn_drop.register_forward_hook(lambda _, __, p: p * dropped)
    place = iter(dropped.split(2 if heads_at_once == 5 else 3))
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v, **_: Careless.apply(q, k, v, next(place)))
    flash.train()
    found = []
    for module in (original, flash):
        x = inputs().requires_grad_()
        leaves = [x, *module.parameters()]
        first = torch.autograd.grad(module(x).square().sum(), leaves, create_graph=True)
        penalty = sum(g.square().sum() for g in first)
        found.append([*first, *torch.autograd.grad(penalty, leaves, allow_unused=True)])
    same(*found)


@pytest.mark.parametrize("training", [True, False])
def test_a_graph_of_second_derivatives_is_gone_with_its_last_reference(training: bool) -> None:
    _, flash = pair()
    flash.train(training)
    gc.collect()
    gc.disable()
    try:
        x = inputs().requires_grad_()
        y = flash(x)
        watched = [weakref.ref(x), weakref.ref(y)]
        nodes = [y.grad_fn]
        for node in nodes:  # each node holds something that goes with it
            node.metadata["held"] = nn.Identity()
            watched.append(weakref.ref(node.metadata["held"]))
            nodes += [following for following, _ in node.next_functions if following not in (None, *nodes)]
        assert any("Attention" in node.name() or training for node in nodes)
        del nodes, node
        (first,) = torch.autograd.grad(y.square().sum(), x, create_graph=True)
        penalty = first.square().sum()
        torch.autograd.grad(penalty, x, retain_graph=True)
        watched += [weakref.ref(first), weakref.ref(penalty)]
        del x, y, first, penalty
        flash = None
        assert not [alive for ref in watched if (alive := ref()) is not None]
    finally:
        gc.enable()


def test_a_gradient_after_one_that_was_differentiated_is_the_kernels_own_again() -> None:
    _, flash = pair()
    x = inputs().requires_grad_()
    y = flash(x).square().sum()
    (once,) = torch.autograd.grad(y, x, retain_graph=True)
    for _ in range(2):
        torch.autograd.grad(y, x, create_graph=True)
    assert torch.equal(torch.autograd.grad(y, x)[0], once)


def test_forward_mode_derivatives_are_the_originals() -> None:
    same(*(torch.func.jvp(module, (inputs(),), (inputs().cos(),)) for module in pair()))


def test_a_kernel_may_stop_a_nan_of_the_future_that_the_original_spreads() -> None:
    """Recorded and not judged: 0 x NaN is the original's, and no use of it."""
    x = inputs()
    x[:, -1] = torch.nan
    its, mine = (module(x) for module in pair())
    assert its.isnan().all()
    assert mine[:, -1].isnan().all()


def test_scores_beyond_float16_may_stay_finite_in_a_kernel() -> None:
    """Recorded and not judged: the drop-in has no infinity of its own where the original has none."""
    for factor, finite in ((1, True), (200, False)):
        its, mine = (module.half()(inputs(dtype=torch.float16) * factor) for module in pair())
        assert bool(its.isfinite().all()) is finite
        assert mine.isfinite().all() or not finite


@pytest.mark.parametrize(("B", "H"), [(1, 16), (16, 1), (3, 4), (7, 2)])
def test_any_number_of_heads_times_batch_is_taken(B: int, H: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What CUDA's grid takes is 65535; here it is 5, on a device that says it is no CPU."""
    original, flash = pair(n_head=H, n_embd=2 * H)
    x = inputs(B, 3, 2 * H)
    expected = results(original, x)
    calls = asked_of_the_kernel(monkeypatch)
    monkeypatch.setattr(sdpa, "HEADS_AT_ONCE", 5)
    monkeypatch.setattr(sdpa, "UNLIMITED", ())
    same(results(flash, x), expected)
    assert sum(b * h for b, h in (call["B, H"] for call in calls)) == B * H
    assert all(b * h <= 5 for b, h in (call["B, H"] for call in calls))


# --- masks -----------------------------------------------------------------------------------------------------------


def no_keys(module: CausalSelfAttention) -> None:
    module.mask[..., 2, :] = 0


def other_values(module: CausalSelfAttention) -> None:
    module.mask.mul_(-2.5)


def per_head(module: CausalSelfAttention) -> None:
    module.mask = (torch.arange(128).view(1, 2, 8, 8) % 3).clamp(0, 1).bool() | torch.eye(8, dtype=torch.bool)


def assigned(module: CausalSelfAttention) -> None:
    module.mask = torch.ones(1, 1, 8, 8, dtype=torch.float64)


def registered_anew(module: CausalSelfAttention) -> None:
    del module.mask
    module.register_buffer("mask", torch.ones(1, 1, 8, 8, dtype=torch.float64))


def filled(module: CausalSelfAttention) -> None:
    module.mask.fill_(1)


def data_assigned(module: CausalSelfAttention) -> None:
    module.mask.data = torch.ones(1, 1, 8, 8)


def loaded(module: CausalSelfAttention) -> None:
    module.load_state_dict(module.state_dict() | {"mask": torch.ones(1, 1, 8, 8)})


def loaded_by_assignment(module: CausalSelfAttention) -> None:
    module.load_state_dict(module.state_dict() | {"mask": torch.ones(1, 1, 8, 8, dtype=torch.float64)}, assign=True)


def emptied(module: CausalSelfAttention) -> None:
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    module.to("meta").to_empty(device="cpu").load_state_dict(state | {"mask": torch.ones(1, 1, 8, 8)})


def narrower(module: CausalSelfAttention) -> None:
    module.mask.fill_(1)
    module.bfloat16().double()


EDITS = [
    no_keys,
    other_values,
    per_head,
    assigned,
    registered_anew,
    filled,
    data_assigned,
    loaded,
    loaded_by_assignment,
    emptied,
    narrower,
]


@pytest.mark.parametrize("edit", EDITS)
def test_a_mask_is_obeyed_however_it_came_there_and_back(edit: Change) -> None:
    original, flash = pair()
    state = copy.deepcopy(original.state_dict())
    flash(inputs())  # it has looked at the causal one
    for module in (original, flash):
        edit(module)
    same(results(flash, inputs()), results(original, inputs()))
    same(copy.deepcopy(flash)(inputs()), original(inputs()))
    same(pickle.loads(pickle.dumps(flash))(inputs()), original(inputs()))
    assert list(flash.state_dict()) == list(state)
    if original.mask.shape == state["mask"].shape:
        for module in (original, flash):
            module.load_state_dict(state)
        same(flash(inputs()), original(inputs()))


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8])
def test_a_mask_of_bytes_takes_a_quarter_and_loads_either_way(dtype: torch.dtype) -> None:
    original, flash = pair()
    float_state = copy.deepcopy(original.state_dict())
    flash.mask = flash.mask.to(dtype)
    assert flash.mask.nbytes * 8 == original.mask.nbytes  # float64 here
    flash.load_state_dict(float_state, strict=True)
    original.load_state_dict(flash.state_dict(), strict=True)
    assert torch.equal(original.mask, float_state["mask"])
    for other in (flash, copy.deepcopy(flash), pickle.loads(pickle.dumps(flash)), flash.bfloat16().double()):
        assert other.mask.dtype is dtype
        assert is_causal(other.mask)
    original.bfloat16().double()  # the weights are rounded in both
    same(results(flash, inputs()), results(original, inputs()))
    for module in (original, flash):
        module.mask[..., :3, :3] = 1
    assert not is_causal(flash.mask)
    same(results(flash, inputs()), results(original, inputs()))


def test_every_query_without_a_key_is_nan_as_in_the_original() -> None:
    _, flash = pair(no_keys)
    assert flash(inputs()).isnan().any(-1).any(0).tolist() == [False, False, True, False, False, False]


def test_a_causal_mask_is_looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[bool] = []
    look = torch.equal
    monkeypatch.setattr(torch, "equal", lambda *pair: looks.append(True) or look(*pair))
    _, flash = pair()
    for _ in range(3):
        flash(inputs())
    assert len(looks) == 1
    flash.float()
    for _ in range(3):
        flash(inputs(dtype=torch.float32))
    assert len(looks) == 2
    flash.load_state_dict(flash.state_dict())
    for _ in range(3):
        flash(inputs(dtype=torch.float32))
    assert len(looks) == 3


def test_a_mask_where_another_one_lay_is_another_one() -> None:
    for fill in (0, 1, 0, 1):
        mask = torch.ones(1, 1, 64, 64).tril()  # often at the address of the last, and as often written to
        mask.clamp_(min=fill)
        assert is_causal(mask) is (fill == 0)
        del mask


def test_what_is_written_to_an_inference_tensor_is_seen() -> None:
    with torch.inference_mode():
        original, flash = pair()
        same(flash(inputs()), original(inputs()))
        for module in (original, flash):
            module.mask[..., 0, 3] = 1
        same(flash(inputs()), original(inputs()))


def test_a_mask_on_another_device_is_refused_as_the_original_refuses_it() -> None:
    for module in pair():
        module.mask = module.mask.to("meta")
        with pytest.raises((RuntimeError, NotImplementedError)):
            module(inputs())


def test_a_mask_of_one_place_broadcasts_as_in_the_original() -> None:
    original, flash = pair(block_size=1)
    same(flash(inputs()), original(inputs()))


def test_a_module_on_the_meta_device_has_the_shapes_of_the_original() -> None:
    its, mine = (module.to("meta")(inputs().to("meta")) for module in pair())
    assert mine.shape == its.shape
    assert mine.is_meta


# --- dropout ---------------------------------------------------------------------------------------------------------


def test_every_call_obeys_rates_and_modes_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    _, flash = pair()
    calls = asked_of_the_kernel(monkeypatch)
    flash.train()(inputs())
    flash.attn_drop.p = 0.6
    flash(inputs())
    flash.attn_drop.eval()
    flash(inputs())
    flash.eval().attn_drop.train()
    flash(inputs())
    assert [call["dropout_p"] for call in calls] == [0.3, 0.6, 0.0, 0.6]
    flash.attn_drop.eval()
    flash.resid_drop.train().p = 1.0
    assert not flash(inputs()).any()


class Halving(nn.Dropout):
    def forward(self, x: Tensor) -> Tensor:
        return x / 2


def hooked_drop(module: CausalSelfAttention) -> None:
    module.attn_drop.register_forward_hook(lambda _, __, p: p / 2)


def pre_hooked_drop(module: CausalSelfAttention) -> None:
    module.attn_drop.register_forward_pre_hook(lambda _, args: (args[0] / 2,))


def instance_drop(module: CausalSelfAttention) -> None:
    module.attn_drop.forward = lambda p: p / 2


def replaced_drop(module: CausalSelfAttention) -> None:
    module.attn_drop = Halving()


def absent_drop(module: CausalSelfAttention) -> None:
    module.attn_drop = nn.Identity()


def total_drop(module: CausalSelfAttention) -> None:
    module.attn_drop.train().p = 1.0


@pytest.mark.parametrize(
    "change", [hooked_drop, pre_hooked_drop, instance_drop, replaced_drop, absent_drop, total_drop]
)
def test_what_stands_in_the_place_of_attention_dropout_is_obeyed(change: Change) -> None:
    original, flash = pair(change)
    same(results(flash, inputs()), results(original, inputs()))
    assert flash.attention_weights is None


def test_a_rate_that_is_none_is_refused_as_the_original_refuses_it() -> None:
    for module in pair():
        module.attn_drop.p = 1.5
        with pytest.raises(ValueError, match=r"1\.5"):
            module(inputs())


@pytest.mark.parametrize("frozen", [False, True])
def test_a_gradient_that_will_be_differentiated_drops_what_the_kernel_dropped(frozen: bool) -> None:
    _, flash = pair()
    flash.train().value.requires_grad_(not frozen)
    x, found = inputs(), []
    for again in (False, True):
        torch.manual_seed(3)
        trained = [p for p in flash.parameters() if p.requires_grad]
        found.append(torch.autograd.grad((flash(x) * x).sum(), trained, create_graph=again))
    same(*found)
    assert torch.autograd.grad(sum(g.square().sum() for g in found[1]), flash.query.weight)[0].any()


# --- what sits on the projections ------------------------------------------------------------------------------------


class LowRank(nn.Module):
    """A linear with an adapter beside it, as LoRA has it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(inputs(2, base.in_features))
        self.up = nn.Parameter(inputs(base.out_features, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.down.mT @ self.up.mT


class Symmetric(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight.triu() + weight.triu(1).mT


PROJECTIONS = ("key", "query", "value", "proj")


def with_adapter(module: nn.Module, name: str) -> None:
    setattr(module, name, LowRank(module.get_submodule(name)))


def with_hooks(module: nn.Module, name: str) -> None:
    layer = module.get_submodule(name)
    layer.register_forward_pre_hook(lambda _, args: (args[0].sin(),))
    layer.register_forward_hook(lambda _, __, y: y * 2)
    layer.register_full_backward_hook(lambda _, given, ___: tuple(g * 3 for g in given))


def with_a_parametrization(module: nn.Module, name: str) -> None:
    parametrize.register_parametrization(module.get_submodule(name), "weight", Symmetric())


def with_a_weight_norm(module: nn.Module, name: str) -> None:
    parametrizations.weight_norm(module.get_submodule(name))


ON_PROJECTIONS = [with_adapter, with_hooks, with_a_parametrization, with_a_weight_norm]


@pytest.mark.parametrize("name", PROJECTIONS)
@pytest.mark.parametrize("put", ON_PROJECTIONS)
def test_what_is_put_on_a_projection_has_the_effect_that_it_has_in_the_original(put: Any, name: str) -> None:
    original, flash = pair(lambda module: put(module, name))
    same(results(flash, inputs()), results(original, inputs()))


@pytest.mark.parametrize("put", ON_PROJECTIONS)
def test_what_is_on_the_projections_lives_through_replacing(put: Any) -> None:
    original, _ = pair()
    for name in PROJECTIONS:
        put(original, name)
    before = results(original, inputs())
    same(results(replace_attention_with_flash_attention(original), inputs()), before)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
@pytest.mark.parametrize("quantise_first", [True, False])
def test_quantised_linears_give_what_they_give_in_the_original(quantise_first: bool) -> None:
    def quantised(module: nn.Module) -> nn.Module:
        return torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8)

    original, flash = pair()
    expected = quantised(original.float())
    mine = (
        replace_attention_with_flash_attention(copy.deepcopy(expected)) if quantise_first else quantised(flash.float())
    )
    assert type(mine) is FlashCausalSelfAttention
    assert type(mine.key) is not nn.Linear
    x = inputs(dtype=torch.float32)
    its = expected(x)
    # an activation that rounding moves across the middle between two levels is off by one of the 255 levels of its row
    torch.testing.assert_close(mine(x), its, rtol=0, atol=float((its.max() - its.min()) / 64))


# --- transforms ------------------------------------------------------------------------------------------------------


def dual(module: nn.Module, x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        return forward_ad.unpack_dual(module(forward_ad.make_dual(x, x.cos()))).tangent


def dual_parameter(module: nn.Module, x: Tensor) -> Tensor:
    with forward_ad.dual_level():
        key = forward_ad.make_dual(module.key.weight.detach(), module.value.weight.detach())
        return forward_ad.unpack_dual(torch.func.functional_call(module, {"key.weight": key}, x)).tangent


def dual_upstream(module: nn.Module, x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    y = module(x)
    with forward_ad.dual_level():
        (g,) = torch.autograd.grad(y, x, forward_ad.make_dual(y.detach(), y.detach().cos()))
        return forward_ad.unpack_dual(g).tangent


def vmapped(module: nn.Module, x: Tensor) -> Tensor:
    return torch.func.vmap(module)(torch.stack([x, x.cos()]))


def vmapped_weights(module: nn.Module, x: Tensor) -> Tensor:
    weights = torch.stack([module.query.weight.detach(), module.key.weight.detach()])
    return torch.func.vmap(lambda w: torch.func.functional_call(module, {"query.weight": w}, x))(weights)


def vmapped_masks(module: nn.Module, x: Tensor) -> Tensor:
    masks = torch.stack([module.mask, torch.ones_like(module.mask)])
    return torch.func.vmap(lambda mask: torch.func.functional_call(module, {"mask": mask}, x))(masks)


def per_sample(module: nn.Module, x: Tensor) -> Any:
    def loss(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
        return torch.func.functional_call(module, parameters, sample[None]).square().sum()

    parameters = {name: p.detach() for name, p in module.named_parameters()}
    return torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(parameters, x)


def hessian(module: nn.Module, x: Tensor) -> Tensor:
    return torch.func.hessian(lambda z: module(z).square().sum())(x[:1, :3])


def jacobian(module: nn.Module, x: Tensor) -> Any:
    return torch.autograd.functional.jacobian(module, x[:1, :3], vectorize=True)


def vjp_of_vjp(module: nn.Module, x: Tensor) -> Tensor:
    return torch.func.grad(lambda z: torch.func.grad(lambda w: module(w).square().sum())(z).square().sum())(x)


def hvp(module: nn.Module, x: Tensor) -> Any:
    return torch.autograd.functional.hvp(lambda z: module(z).square().sum(), x, x.cos())


TRANSFORMS = [
    dual,
    dual_parameter,
    dual_upstream,
    vmapped,
    vmapped_weights,
    vmapped_masks,
    per_sample,
    hessian,
    jacobian,
    vjp_of_vjp,
    hvp,
]


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_a_transform_gives_what_it_gives_of_the_original(transform: Any) -> None:
    original, flash = pair()
    same(transform(flash, inputs()), transform(original, inputs()))


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_activation_checkpointing_changes_nothing(reentrant: bool, training: bool) -> None:
    _, flash = pair()
    flash.train(training)
    found = []
    for module in (flash, lambda x: checkpoint(flash, x, use_reentrant=reentrant)):
        torch.manual_seed(2)
        x = inputs().requires_grad_()
        y = module(x)
        y.square().sum().backward()
        found.append([y, x.grad, *(p.grad.clone() for p in flash.parameters())])
        flash.zero_grad()
    same(*found)


@pytest.mark.parametrize("training", [True, False])
def test_a_checkpointed_gradient_can_be_differentiated(training: bool) -> None:
    _, flash = pair()
    flash.train(training)
    found = []
    for module in (flash, lambda x: checkpoint(flash, x, use_reentrant=False)):
        torch.manual_seed(2)
        x = inputs().requires_grad_()
        (first,) = torch.autograd.grad(module(x).square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), x))
    same(*found)


def test_a_graph_that_is_kept_can_be_gone_through_twice() -> None:
    _, flash = pair()
    x = inputs().requires_grad_()
    y = flash(x).sum()
    first = torch.autograd.grad(y, x, retain_graph=True)
    same(torch.autograd.grad(y, x), first)


def test_a_gradient_that_is_not_differentiated_is_the_kernels_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sdpa, "_gradients", lambda *_: pytest.fail("the formula was asked"))
    _, flash = pair()
    results(flash, inputs())


def test_nothing_is_saved_that_the_kernel_does_not_save() -> None:
    _, flash = pair()
    x = inputs().requires_grad_()
    saved = []
    for module in (flash, lambda z: flash._merge(F.scaled_dot_product_attention(*flash._heads(z), is_causal=True))):
        storages: dict[int, int] = {}

        def pack(t: Tensor, storages: dict[int, int] = storages) -> Tensor:
            storages[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            return t

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            kept = module(x)
        saved.append(sum(storages.values()))
        del kept
    assert saved[0] == saved[1]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_the_dtype_and_the_values_of_the_original(dtype: torch.dtype) -> None:
    found = []
    for module in pair():
        x = inputs(dtype=torch.float32).requires_grad_()
        with torch.autocast("cpu", dtype=dtype):
            y = module.float()(x)
        (first,) = torch.autograd.grad(y.float().square().mean(), x, create_graph=True)
        found.append([y, first, *torch.autograd.grad(first.square().mean(), x)])
    assert [t.dtype for t in found[1]] == [t.dtype for t in found[0]]
    for its, mine in zip(*found, strict=True):
        assert (mine - its).norm() < 16 * torch.finfo(dtype).eps * its.norm()


# --- torch.compile ---------------------------------------------------------------------------------------------------


@pytest.fixture
def compiled() -> Any:
    torch.compiler.reset()
    yield lambda module: torch.compile(module, fullgraph=True, backend="aot_eager")
    torch.compiler.reset()


def test_one_whole_graph_is_compiled_with_the_kernel_in_it(compiled: Any) -> None:
    original, flash = pair()
    graphs: list[str] = []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        graphs.append(graph.code)
        return graph.forward

    torch.compile(flash, fullgraph=True, backend=backend)(inputs())
    assert len(graphs) == 1
    assert "scaled_dot_product_attention" in graphs[0]
    same(results(compiled(flash), inputs()), results(original, inputs()))


def test_compiled_code_follows_modes_rates_and_shapes(compiled: Any) -> None:
    _, flash = pair()
    fast = compiled(flash)
    for change in (flash.train, lambda: setattr(flash.attn_drop, "p", 0.6), flash.eval):
        change()
        for shape in ((3, 6, 8), (2, 4, 8)):
            torch.manual_seed(1)
            its = flash(inputs(*shape))
            torch.manual_seed(1)
            same(fast(inputs(*shape)), its)


@pytest.mark.parametrize("edit", [no_keys, per_head, filled])
def test_a_mask_edited_before_compiling_is_obeyed_then_and_later(compiled: Any, edit: Change) -> None:
    original, flash = pair(edit)
    fast = compiled(flash)
    same(fast(inputs()), original(inputs()))
    for module in (original, flash):
        module.mask[..., 1, 5] = 1
    same(fast(inputs()), original(inputs()))


@pytest.mark.parametrize("edit", [filled, assigned, loaded, loaded_by_assignment])
def test_compiled_code_refuses_a_mask_that_is_causal_no_more_until_it_is_compiled_anew(
    compiled: Any, edit: Change
) -> None:
    original, flash = pair()
    fast = compiled(flash)
    same(fast(inputs()), original(inputs()))
    flash.load_state_dict(original.state_dict())
    same(fast(inputs()), original(inputs()))
    for module in (original, flash):
        edit(module)
    with pytest.raises(RuntimeError, match=r"edited after .* torch\.compiler\.reset"):
        fast(inputs())
    torch.compiler.reset()
    same(results(fast, inputs()), results(original, inputs()))


def test_compiled_code_looks_at_a_causal_mask_once(compiled: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[bool] = []
    look = causal_mask._look
    monkeypatch.setattr(causal_mask, "_look", lambda mask: looks.append(True) or look(mask))
    _, flash = pair()
    fast = compiled(flash)
    for _ in range(3):
        fast(inputs()).sum().backward()
    assert len(looks) == 1


@pytest.mark.parametrize("transform", [vmapped, per_sample])
def test_a_transform_can_be_compiled(compiled: Any, transform: Any) -> None:
    original, flash = pair()
    same(compiled(lambda x: transform(flash, x))(inputs()), transform(original, inputs()))


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("edit", [lambda _: None, filled])
def test_an_exported_program_gives_what_the_original_gives(strict: bool, edit: Change) -> None:
    original, flash = pair(edit)
    program = torch.export.export(flash, (inputs(),), strict=strict)
    same(program.module()(inputs()), original(inputs()))
    assert not [node for node in program.graph.nodes if "equivcheck" in str(node.target)]  # it is read elsewhere, too


# --- copies, files and odd shapes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_is_one_of_its_own(copied: Any) -> None:
    _, flash = pair()
    flash(inputs())
    other = copied(flash)
    assert type(other) is FlashCausalSelfAttention
    assert torch.equal(other(inputs()), flash(inputs()))
    other.mask.fill_(1)
    assert is_causal(flash.mask)
    assert not is_causal(other.mask)


def test_a_saved_state_is_loaded_as_weights_only_by_either() -> None:
    original, flash = pair()
    flash(inputs())
    for source, target in ((flash, CausalSelfAttention), (original, FlashCausalSelfAttention)):
        file = io.BytesIO()
        torch.save(source.state_dict(), file)
        file.seek(0)
        other = target(config()).double().eval()
        other.load_state_dict(torch.load(file, weights_only=True), strict=True)
        same(other(inputs()), original(inputs()))


@pytest.mark.parametrize("shape", [(0, 5, 8), (3, 0, 8), (0, 0, 8), (1, 1, 8)])
def test_an_empty_batch_or_sequence_is_what_it_is_in_the_original(shape: tuple[int, int, int]) -> None:
    x = torch.zeros(shape, dtype=torch.float64)
    its, mine = (results(module, x) for module in pair())
    same(mine, its)


@pytest.mark.parametrize(
    "x", [inputs(6, 8), inputs(1, 2, 6, 8), inputs(3, 6, 7), inputs(dtype=torch.float32), torch.ones(3, 6, 8).long()]
)
def test_what_the_original_refuses_is_refused_with_the_same_kind_of_error(x: Tensor) -> None:
    kinds = []
    for module in pair():
        with pytest.raises(Exception, match=r"\S") as raised:
            module(x)
        kinds.append(raised.type)
    assert kinds[0] is kinds[1]
