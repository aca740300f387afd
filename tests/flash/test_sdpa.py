"""The kernel under autograd: derivatives of every order are the original's, and nothing more is kept than the kernel keeps."""

import gc
import weakref
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from drop_in import asked_of_the_kernel, inputs, pair, results, same
from torch import Tensor, nn

from equivcheck.flash import sdpa


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
def test_second_derivatives_are_right_where_a_kernel_has_none(
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
        assert any("Attention" in node.name() for node in nodes) is not training  # dropout takes the kernel apart
        assert any("SafeSoftmax" in node.name() for node in nodes) is training
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


def test_after_a_second_derivative_a_gradient_is_the_kernels_again() -> None:
    _, flash = pair()
    x = inputs().requires_grad_()
    y = flash(x).square().sum()
    (once,) = torch.autograd.grad(y, x, retain_graph=True)
    for _ in range(2):
        torch.autograd.grad(y, x, create_graph=True)
    assert torch.equal(torch.autograd.grad(y, x)[0], once)


def test_forward_mode_derivatives_are_the_originals() -> None:
    same(*(torch.func.jvp(module, (inputs(),), (inputs().cos(),)) for module in pair()))


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


@pytest.mark.parametrize("frozen", [False, True])
def test_a_differentiable_gradient_drops_what_the_kernel_dropped(frozen: bool) -> None:
    _, flash = pair()
    flash.train().value.requires_grad_(not frozen)
    x, found = inputs(), []
    for again in (False, True):
        torch.manual_seed(3)
        trained = [p for p in flash.parameters() if p.requires_grad]
        found.append(torch.autograd.grad((flash(x) * x).sum(), trained, create_graph=again))
    same(*found)
    assert torch.autograd.grad(sum(g.square().sum() for g in found[1]), flash.query.weight)[0].any()


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
