"""How far an attention is from the original in one situation, in units of what rounding explains."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from equivcheck.attention import CausalSelfAttention
from equivcheck.faults.base import Factory
from equivcheck.numerics.error_model import ErrorModel
from equivcheck.numerics.monte_carlo import Rounding

f64, f32, bf16, f16 = torch.float64, torch.float32, torch.bfloat16, torch.float16


Sees = Callable[[Factory], bool]  # is this attention wrong here? To be False for the original


Edit = Callable[[Tensor], Tensor]


MARGIN = 2.0
"""How many times what rounding explains a fault must be: another host's rounding takes at most one of them away, and it is
still beyond what rounding explains. Nothing may lie between one and this."""


PERTURBED = 8  # runs of the original in float64: the largest error of them is what rounding explains


SIGMAS = 6.0  # of a share that is one half by chance, as in `wrong_share`


def same(t: Tensor) -> Tensor:
    return t


def pulled_back(y: Tensor, leaves: list[Tensor], g: Tensor) -> list[Tensor]:
    """Gradients by a backward pass: some right attentions refuse `torch.autograd.grad`."""
    for leaf in leaves:
        leaf.grad = None
    y.backward(g)
    return [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]


@dataclass(frozen=True, kw_only=True)
class Differs:
    """Whether an attention is further from the float64 original than rounding explains, in one situation.

    What rounding explains is taken from perturbed runs of the original, and not from its one run on this host. `signed`: whether
    more of its outputs are too small (-1) or too large (+1) than chance explains, by however little.
    """

    B: int = 2
    T: int = 12
    H: int = 2
    D: int = 4
    block: int | None = None
    dtype: torch.dtype = f64
    training: bool = False
    rate: float = 0.0
    gain: float = 1.0  # of everything that makes queries and keys
    x: Edit = same
    g: Edit = same
    grads: bool = False
    no_grad: bool = False
    signed: int = 0

    def config(self) -> Any:
        C = self.H * self.D
        block = self.block or self.T + 3
        return SimpleNamespace(
            n_embd=C, n_head=self.H, block_size=block, attn_pdrop=self.rate, resid_pdrop=0.0, n_layer=4
        )

    def build(self, attention: Factory, dtype: torch.dtype) -> nn.Module:
        torch.manual_seed(0)
        config = self.config()
        original = CausalSelfAttention(config)
        for name, parameter in original.named_parameters():
            size = config.n_embd**-0.5 if parameter.dim() > 1 else 0.5
            nn.init.normal_(parameter, std=size * (self.gain if name.startswith(("query", "key")) else 1.0))
        # rounded to the dtype of the case, so that the oracle has the very same weights
        state = {name: t.detach().to(self.dtype).to(dtype) for name, t in original.state_dict().items()}
        module = attention(config).to(dtype)
        module.load_state_dict(state)
        return module.train(self.training)

    def results(self, attention: Factory, dtype: torch.dtype) -> list[Tensor]:
        module = self.build(attention, dtype)
        torch.manual_seed(1)
        x = torch.randn(self.B, self.T, self.H * self.D).to(self.dtype)
        g = torch.randn(self.B, self.T, self.H * self.D).to(self.dtype)
        x, g = self.x(x.to(dtype)).detach().requires_grad_(self.grads), self.g(g.to(dtype))
        with torch.set_grad_enabled(not self.no_grad):
            y: Tensor = module(x)
        if not self.grads:
            return [y.detach()]
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        return [y.detach(), *pulled_back(y, [x, *parameters], g)]

    def ratio(self, attention: Factory) -> float:
        """The distance of an attention from the oracle in units of what rounding explains, the greatest of its results."""
        oracle, rounding = explained(self)
        found = [result.detach().double() for result in self.results(attention, self.dtype)]
        if self.signed:
            error = self.signed * (found[0] - oracle[0]) * oracle[0].sign()
            share = float((error[error != 0] > 0).double().mean())
            rows = self.B * self.T  # numbers of one row have errors in common
            return max(0.0, share - 0.5) / (SIGMAS * 0.5 / rows**0.5)
        if len(found) != len(oracle) or any(bool(result.isnan().any()) for result in found):
            return math.inf
        errors = [float((a - o).norm()) for a, o in zip(found, oracle, strict=True)]
        return max(e / most if most else math.inf if e else 0.0 for e, most in zip(errors, rounding, strict=True))

    def __call__(self, attention: Factory) -> bool:
        ratio = self.ratio(attention)
        assert not 1.0 < ratio < MARGIN, f"{ratio:.3g} of what rounding explains is neither right nor clearly wrong"
        return ratio > 1.0


@cache
def explained(case: Differs) -> tuple[list[Tensor], list[float]]:
    """The original's results in float64, and how far rounding in the case's dtype moves each of them, as a norm."""
    oracle = case.results(CausalSelfAttention, f64)
    alike = case.gain == 0.0 or case.x in (one_sample, one_value, equal_tokens)
    model = ErrorModel(case.dtype, torch.device("cpu"), torch.Generator().manual_seed(0), coherent=alike)
    most = [0.0 for _ in oracle]
    for _ in range(PERTURBED):
        with Rounding(model):
            perturbed = case.results(CausalSelfAttention, f64)
        most = [max(m, float((p.detach() - o).norm())) for m, p, o in zip(most, perturbed, oracle, strict=True)]
    return oracle, most


def distance(found: Tensor, oracle: Tensor) -> float:
    """The relative distance, or the absolute where the oracle is zero but for rounding, as a key bias's gradient is."""
    found, oracle = found.detach().double(), oracle.detach()
    size = float(oracle.norm())
    return float((found - oracle).norm()) / (size if size > 1e-6 else 1.0)


def config_with(attn: float = 0.0, resid: float = 0.0, T: int = 32, B: int = 4) -> Any:
    return SimpleNamespace(n_embd=16, n_head=4, block_size=T, attn_pdrop=attn, resid_pdrop=resid, n_layer=1, B=B)


# --- layouts of what comes in, forward or backward


def transposed(t: Tensor) -> Tensor:
    return t.transpose(0, 1).contiguous().transpose(0, 1)


def with_offset(t: Tensor) -> Tensor:
    return torch.cat((t.new_full((1, *t.shape[1:]), 7.0), t))[1:]


def every_other(t: Tensor) -> Tensor:
    return torch.stack((t, t + 7.0), dim=1)[:, 0]


def one_sample(t: Tensor) -> Tensor:
    return t[:1].expand_as(t)


def one_value(t: Tensor) -> Tensor:
    return t[:1, :1, :1].expand_as(t)


def equal_tokens(t: Tensor) -> Tensor:
    return t[:, :1].repeat(1, t.size(1), 1)


TOWARD_ZERO = Differs(dtype=bf16, B=32, T=64, H=4, D=16, signed=-1)


def ids(things: tuple[Any, ...]) -> dict[str, Any]:
    return {"argvalues": things, "ids": [thing.name for thing in things]}
