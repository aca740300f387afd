"""What torch.func, forward mode, checkpointing and autocast give of the drop-in is what they give of the original."""

from typing import Any

import pytest
import torch
from drop_in import inputs, pair, same
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.utils.checkpoint import checkpoint


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
    for its, ours in zip(*found, strict=True):
        assert (ours - its).norm() < 16 * torch.finfo(dtype).eps * its.norm()


@pytest.mark.parametrize("transform", [vmapped, per_sample])
def test_a_transform_can_be_compiled(compiled: Any, transform: Any) -> None:
    original, flash = pair()
    same(compiled(lambda x: transform(flash, x))(inputs()), transform(original, inputs()))
