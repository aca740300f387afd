"""Questions to an attention that are answered yes where a fault shows, and no for the original."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from differing import Sees, config_with, distance, f64, pulled_back
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention
from equivcheck.faults.base import Factory
from equivcheck.faults.inside.decomposed import Parted
from equivcheck.gpt import GPT, GPTConfig

# --- dropout: the mask is what the kept probabilities of a call in training mode are to those in eval mode


def masks(attention: Factory, attn: float = 0.5, resid: float = 0.0, calls: int = 1) -> Tensor:
    """(calls, B, nh, entries): 0 where dropped, and else what the probability was multiplied by."""
    config = config_with(attn, resid)
    torch.manual_seed(0)
    module = attention(config).double()
    x = torch.randn(config.B, config.block_size, config.n_embd, dtype=f64)
    plain = CausalSelfAttention(config).double().eval()
    plain.load_state_dict(module.state_dict())
    plain(x)
    found = []
    for _ in range(calls):
        module(x)
        found.append(module.attention_weights / plain.attention_weights)
    rows, columns = torch.tril_indices(config.block_size, config.block_size)
    return torch.stack(found)[..., rows, columns].detach()


def wrong_share(dropped: Tensor, rate: float) -> bool:
    return abs(float(dropped.double().mean()) - rate) > 6 * (max(rate * (1 - rate), 1e-9) / dropped.numel()) ** 0.5


def drops_another_share(attention: Factory) -> bool:
    return wrong_share(masks(attention, attn=0.5, resid=0.2, calls=4) == 0, 0.5)


def scales_otherwise(attention: Factory) -> bool:
    found = masks(attention)
    return not bool(((found == 0) | ((found - 2.0).abs() < 1e-9)).all())


def drops_another_share_of_the_diagonal(attention: Factory) -> bool:
    rows, columns = torch.tril_indices(32, 32)
    return wrong_share(masks(attention, calls=4)[..., rows == columns] == 0, 0.5)


def shares_a_mask(dim: int) -> Sees:
    """Over calls, samples or heads."""

    def sees(attention: Factory) -> bool:
        found = masks(attention, calls=2) == 0
        return bool((found.diff(dim=dim) == 0).all()) and bool(found.any())

    return sees


def shares_a_mask_within_the_rows(column: bool) -> Sees:
    def sees(attention: Factory) -> bool:
        found = masks(attention)[0] == 0
        rows, columns = torch.tril_indices(32, 32)
        lines = [found[..., (columns if column else rows) == i] for i in range(32)]
        return all(bool((line == line[..., :1]).all()) for line in lines)

    return sees


class UnderAMask(Parted):
    """The original under a given mask."""

    mask_of_dropout: Tensor

    def dropped(self, p: Tensor) -> Tensor:
        return p * self.mask_of_dropout


def goes_back_under_another_mask(attention: Factory) -> bool:
    """The gradients of a call in training mode against those of the original under the mask of its forward pass."""
    config = config_with(0.5, T=6, B=2)
    torch.manual_seed(0)
    module, original = attention(config).double(), UnderAMask(config).double()
    original.load_state_dict(module.state_dict())
    x = torch.randn(2, 6, 16, dtype=f64, requires_grad=True)
    g = torch.randn(2, 6, 16, dtype=f64)
    y = module(x)
    original.mask_of_dropout = (module.attention_weights.detach() != 0) * 2.0
    truth = original(x)
    found, wanted = (pulled_back(t, [x, *m.parameters()], g) for t, m in ((y, module), (truth, original)))
    assert distance(y.detach(), truth.detach()) < 1e-12
    return any(distance(a, b) > 1e-9 for a, b in zip(found, wanted, strict=True))


def goes_back_otherwise_the_second_time(attention: Factory) -> bool:
    """Whether two backward passes through one graph give the input two gradients."""
    torch.manual_seed(0)
    module = attention(config_with()).double()
    x = torch.randn(2, 6, 16, dtype=f64, requires_grad=True)
    y = module(x)
    g = torch.randn_like(y)
    first, second = (torch.autograd.grad(y, x, g, retain_graph=True)[0] for _ in range(2))
    return distance(second, first) > 1e-9


def drops_another_share_of_the_result(training: bool) -> Sees:
    def sees(attention: Factory) -> bool:
        config = config_with(0.2, 0.5)
        torch.manual_seed(0)
        y = attention(config).train(training)(torch.randn(config.B, config.block_size, config.n_embd))
        return wrong_share(y == 0, 0.5 if training else 0.0)

    return sees


def draws_otherwise_after(prepare: Callable[[Any, Tensor], object]) -> Sees:
    """Whether, after `prepare(module, x)`, the share that is dropped is not the one that `attn_drop` stands for."""

    def sees(attention: Factory) -> bool:
        config = config_with(0.5)
        torch.manual_seed(0)
        original, module = CausalSelfAttention(config), attention(config)
        x = torch.randn(config.B, config.block_size, config.n_embd)
        for m in (original, module):
            prepare(m, x)
            m(x)
        seen = torch.ones_like(original.attention_weights, dtype=torch.bool).tril()
        rate = original.attn_drop.p if original.attn_drop.training else 0.0
        return wrong_share((module.attention_weights == 0)[seen], rate)

    return sees


def evaluated_once(module: Any, x: Tensor) -> None:
    module.eval()
    module(x)
    module.train()


def reseeds(attention: Factory) -> bool:
    module, x = attention(config_with(0.5)), torch.randn(1, 4, 16)
    states = []
    for seed in (5, 6):
        torch.manual_seed(seed)
        module(x)
        states.append(torch.get_rng_state())
    return torch.equal(*states)


def draws_in_eval(attention: Factory) -> bool:
    module, x = attention(config_with()).eval(), torch.randn(1, 4, 16)
    before = torch.get_rng_state()
    module(x)
    return not torch.equal(before, torch.get_rng_state())


# --- interface, checkpoints, errors


def bypasses_hooks(*names: str, grad: bool = True) -> Sees:
    def sees(attention: Factory) -> bool:
        module, fired = attention(config_with()).train(grad), []
        for name in names:
            module.get_submodule(name).register_forward_hook(lambda m, _, y: fired.append(m))
        with torch.set_grad_enabled(grad):
            module(torch.randn(1, 4, 16))
        return len(fired) != len(names)

    return sees


def has_other_keys(attention: Factory) -> bool:
    def keys(module: nn.Module) -> list[Any]:
        return [(name, t.shape, t.dtype) for name, t in module.state_dict().items()]

    return keys(attention(config_with())) != keys(CausalSelfAttention(config_with()))


def runs(call: Callable[[], object]) -> bool:
    try:
        call()
    except (RuntimeError, ValueError):
        return False
    return True


def accepts(*shape: int) -> Sees:
    return lambda attention: runs(lambda: attention(config_with())(torch.randn(shape)))


def about(question: Callable[[Any], object]) -> Sees:
    """Of a module as it was built."""
    return lambda attention: bool(question(attention(config_with(0.5, 0.25))))


def odd_heads(attention: Factory) -> bool:
    config = config_with()
    config.n_head = 3
    return runs(lambda: attention(config))


# --- state


def after(prepare: Callable[[Any, Tensor], object], T: int = 6) -> Sees:
    """Whether, after `prepare(module, x)` on both, an attention differs from the original, or from how it was."""

    def sees(attention: Factory) -> bool:
        config = config_with(T=8)
        torch.manual_seed(0)
        original, module = CausalSelfAttention(config).double().eval(), attention(config).double().eval()
        original.load_state_dict(module.state_dict())
        x = torch.randn(2, T, 16, dtype=f64)
        with torch.no_grad():
            results = [(prepare(m, x.clone()) or m)(x) for m in (original, module)]  # type: ignore[operator]
        return distance(results[1], results[0]) > 1e-9

    return sees


def calls_another(module: Any, x: Tensor) -> None:
    module(x.flip(1) + 1)


def calls_shorter(module: Any, x: Tensor) -> None:
    module(x[:, :3])


def trains_between(module: Any, x: Tensor) -> None:
    module(x)
    for parameter in module.parameters():
        parameter.mul_(1.5)


def is_copied(module: Any, x: Tensor) -> Any:
    copied = copy.deepcopy(module)
    for parameter in copied.parameters():
        parameter.mul_(1.5)
    return copied


def changes(what: Callable[[Any, Tensor], Any]) -> Sees:
    """Whether a call changes what `what(module, x)` reads."""

    def sees(attention: Factory) -> bool:
        module, x = attention(config_with(T=8)), torch.randn(2, 6, 16)
        before = copy.deepcopy(what(module, x))
        with torch.no_grad():
            module(x)
        return not all(torch.equal(a, b) for a, b in zip(before, what(module, x), strict=True))

    return sees


def cannot_train_after_inference(attention: Factory) -> bool:
    module, x = attention(config_with()), torch.randn(1, 4, 16)
    with torch.inference_mode():
        module(x)
    return not runs(lambda: module(x).sum().backward())


def loses_a_gradient(*, frozen: bool) -> Sees:
    """Whether the gradient of the input is not the original's where the weight of the keys is frozen, or is not."""

    def gradient(module: Any) -> Tensor:
        module.key.weight.requires_grad_(not frozen)
        x = torch.linspace(-1, 1, 2 * 6 * 16, dtype=f64).view(2, 6, 16).sin().requires_grad_()
        return pulled_back(module(x).square().sum(), [x], torch.ones((), dtype=f64))[0]

    def sees(attention: Factory) -> bool:
        torch.manual_seed(0)
        original, module = CausalSelfAttention(config_with()).double(), attention(config_with()).double()
        original.load_state_dict(module.state_dict())
        return distance(gradient(module), gradient(original)) > 1e-9

    return sees


def last_position_is_off(dtype: torch.dtype) -> Sees:
    """Whether the slope of the last position on the original's is beyond 1 %, and no other position's is."""

    def sees(attention: Factory) -> bool:
        x = torch.linspace(-9, 9, 4 * 16, dtype=f64).view(1, 4, 16).sin().to(dtype)
        torch.manual_seed(0)
        original, module = CausalSelfAttention(config_with()).to(dtype), attention(config_with()).to(dtype)
        original.load_state_dict(module.state_dict())
        bias = original.proj.bias.detach().double()
        own, ours = (m(x).detach().double() - bias for m in (original, module))
        slopes = [float((ours[:, t] * own[:, t]).sum() / own[:, t].square().sum()) - 1 for t in range(4)]
        return abs(slopes[-1]) > 0.01 and all(abs(slope) < 0.01 for slope in slopes[:-1])

    return sees


def differs_in_inference_mode(attention: Factory) -> bool:
    module, x = attention(config_with()).double().eval(), torch.linspace(-1, 1, 6 * 16, dtype=f64).view(1, 6, 16)
    own = module(x).detach()
    with torch.inference_mode():
        return distance(module(x).clone(), own) > 1e-9


def overwrites_its_result(attention: Factory) -> bool:
    module, x = attention(config_with(T=8)), torch.randn(2, 6, 16)
    with torch.no_grad():
        first = module(x)
        before = first.clone()
        module(x + 1)
    return not torch.equal(first, before)


def sets_a_flag(attention: Factory) -> bool:
    before = torch.backends.cudnn.benchmark
    try:
        attention(config_with())(torch.randn(1, 4, 16))
        return bool(torch.backends.cudnn.benchmark != before)
    finally:
        torch.backends.cudnn.benchmark = before


def sets_modes(attention: Factory) -> bool:
    module = attention(config_with(0.5)).eval()
    module.get_submodule("attn_drop").train()
    module(torch.randn(1, 4, 16))
    return not module.get_submodule("attn_drop").training


def moves_logits(n_layer: int) -> Sees:
    def sees(attention: Factory) -> bool:
        config = GPTConfig(vocab_size=11, block_size=8, n_layer=n_layer, n_head=2, n_embd=8)
        torch.manual_seed(0)
        original, model = GPT(config).double().eval(), GPT(config, attention).double().eval()
        for parameter in original.parameters():
            nn.init.normal_(parameter)
        model.load_state_dict(original.state_dict())
        idx = torch.randint(0, 11, (2, 8))
        return distance(model(idx)[0], original(idx)[0]) > 1e-9

    return sees


def is_random(training: bool, rate: float = 0.5) -> Sees:
    def sees(attention: Factory) -> bool:
        module, x = attention(config_with(rate)).train(training), torch.randn(1, 4, 16)
        return not torch.equal(module(x), module(x))

    return sees
